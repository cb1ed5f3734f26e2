// Planes that are stored as they are, to where they are read back: the twin of what `begin` in fs/codec/src/tensor/block.rs does with
// these.

struct Copy {
    source: u32,
    to: u32,
    words: u32,
}

@group(0) @binding(0) var<storage, read> copies: array<Copy>;
@group(0) @binding(1) var<storage, read> planes: array<u32>;
@group(0) @binding(2) var<storage, read_write> coded: array<u32>;

@compute @workgroup_size(256)
fn keep(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let copy = copies[group.x];
    for (var w = thread; w < copy.words; w += 256u) {
        coded[copy.to + w] = planes[copy.source + w];
    }
}
