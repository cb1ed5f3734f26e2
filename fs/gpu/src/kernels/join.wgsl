// Puts planes together to elements: the twin of `join` in fs/codec/src/tensor/planes.rs. A thread makes four bytes.

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
@group(0) @binding(3) var<storage, read_write> plain: array<u32>;

// Where each of the block's planes begins.
var<workgroup> begins: array<u32, 8>;

fn plane_byte(base: u32, at: u32) -> u32 {
    return planes[base + at / 4u] >> (8u * (at % 4u)) & 0xffu;
}

@compute @workgroup_size(256)
fn join(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let block = blocks[group.y];
    let width = kinds[block.kind].width;
    let turn = kinds[block.kind].turn;
    if thread == 0u {
        var at = block.planes;
        for (var plane = 0u; plane < kinds[block.kind].planes; plane++) {
            begins[plane] = at;
            at += (kinds[block.kind].fields[plane] * block.elements + 3u) / 4u;
        }
    }
    workgroupBarrier();
    let bytes = width * block.elements;
    for (var w = group.x * 256u + thread; 4u * w < bytes; w += groups.x * 256u) {
        var word = 0u;
        for (var j = 0u; j < 4u && 4u * w + j < bytes; j++) {
            let element = (4u * w + j) / width;
            let number = (4u * w + j) % width;
            var plane = 0u;
            while plane + 1u < kinds[block.kind].planes && kinds[block.kind].starts[plane + 1u] <= number {
                plane++;
            }
            let field = kinds[block.kind].fields[plane];
            var byte = plane_byte(begins[plane], element * field + number - kinds[block.kind].starts[plane]);
            if turn == 1u {
                // Each plane of such an element is one byte of it.
                let above = plane_byte(begins[select(plane + 1u, 0u, plane + 1u == width)], element);
                byte = byte >> 1u | (above & 1u) << 7u;
            }
            word |= byte << (8u * j);
        }
        plain[block.plain + w] = word;
    }
}
