// How often each byte of a plane comes: the twin of `count` in fs/codec/src/tensor/planes.rs, and of what `is_noise` in block.rs
// takes for its sample.
//
// A workgroup to a plane. A count has 17 bits, and from bit 17 on those that are part of the sample: the first 64 of each 512.

struct Block {
    plain: u32,
    planes: u32,
    elements: u32,
    kind: u32,
    first: u32,
}

struct Kind {
    width: u32,
    turn: u32,
    planes: u32,
    fields: array<u32, 8>,
    starts: array<u32, 8>,
}

@group(0) @binding(0) var<storage, read> kinds: array<Kind>;
@group(0) @binding(1) var<storage, read> blocks: array<Block>;
@group(0) @binding(2) var<storage, read> planes: array<u32>;
@group(0) @binding(3) var<storage, read_write> counts: array<u32>;

var<workgroup> table: array<atomic<u32>, 256>;

@compute @workgroup_size(256)
fn count(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let block = blocks[group.y];
    atomicStore(&table[thread], 0u);
    workgroupBarrier();
    let there = group.x < kinds[block.kind].planes;
    if there {
        var begin = block.planes;
        for (var before = 0u; before < group.x; before++) {
            begin += (kinds[block.kind].fields[before] * block.elements + 3u) / 4u;
        }
        let bytes = kinds[block.kind].fields[group.x] * block.elements;
        for (var w = thread; 4u * w < bytes; w += 256u) {
            let word = planes[begin + w];
            // Samples begin and end at words.
            let one = select(1u, 1u | 1u << 17u, 4u * w % 512u < 64u);
            for (var j = 0u; j < 4u && 4u * w + j < bytes; j++) {
                atomicAdd(&table[word >> (8u * j) & 0xffu], one);
            }
        }
    }
    workgroupBarrier();
    if there {
        counts[(block.first + group.x) * 256u + thread] = atomicLoad(&table[thread]);
    }
}
