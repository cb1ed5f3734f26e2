// Takes elements apart into planes: the twin of `split` in fs/codec/src/tensor/planes.rs.
//
// A block's elements begin at a word, and so does each of its planes. A thread makes a word of a plane, four bytes of it.

struct Block {
    plain: u32,
    planes: u32,
    elements: u32,
    kind: u32,
    first: u32,
}

struct Kind {
    width: u32,
    // 1 for floats whose exponent lies across two bytes.
    turn: u32,
    planes: u32,
    fields: array<u32, 8>,
    starts: array<u32, 8>,
}

@group(0) @binding(0) var<storage, read> kinds: array<Kind>;
@group(0) @binding(1) var<storage, read> blocks: array<Block>;
@group(0) @binding(2) var<storage, read> plain: array<u32>;
@group(0) @binding(3) var<storage, read_write> planes: array<u32>;

fn plain_byte(base: u32, at: u32) -> u32 {
    return plain[base + at / 4u] >> (8u * (at % 4u)) & 0xffu;
}

@compute @workgroup_size(256)
fn split(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let block = blocks[group.y];
    let width = kinds[block.kind].width;
    let turn = kinds[block.kind].turn;
    var to = block.planes;
    for (var plane = 0u; plane < kinds[block.kind].planes; plane++) {
        let field = kinds[block.kind].fields[plane];
        let start = kinds[block.kind].starts[plane];
        let bytes = field * block.elements;
        let words = (bytes + 3u) / 4u;
        for (var w = group.x * 256u + thread; w < words; w += groups.x * 256u) {
            var word = 0u;
            for (var j = 0u; j < 4u && 4u * w + j < bytes; j++) {
                let element = (4u * w + j) / field;
                let number = start + (4u * w + j) % field;
                let at = element * width;
                var byte = plain_byte(block.plain, at + number);
                if turn == 1u {
                    let below = plain_byte(block.plain, at + select(number, width, number == 0u) - 1u);
                    byte = (byte << 1u | below >> 7u) & 0xffu;
                }
                word |= byte << (8u * j);
            }
            planes[to + w] = word;
        }
        to += words;
    }
}
