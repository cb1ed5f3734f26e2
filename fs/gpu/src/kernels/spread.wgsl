// Planes that are stored as they are, or are constant, to where all planes lie: the twin of what `Opened::open` in
// fs/codec/src/tensor/block.rs does with these.

struct Piece {
    // A byte of `stored`.
    source: u32,
    to: u32,
    len: u32,
    // All of it is this byte, if this is one.
    constant: u32,
}

@group(0) @binding(0) var<storage, read> pieces: array<Piece>;
@group(0) @binding(1) var<storage, read> stored: array<u32>;
@group(0) @binding(2) var<storage, read_write> planes: array<u32>;

@compute @workgroup_size(256)
fn spread(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let piece = pieces[group.x];
    for (var w = thread; 4u * w < piece.len; w += 256u) {
        var word = piece.constant * 0x01010101u;
        if piece.constant > 0xffu {
            let at = piece.source + 4u * w;
            let shift = 8u * (at % 4u);
            word = stored[at / 4u] >> shift;
            if shift > 0u {
                word |= stored[at / 4u + 1u] << (32u - shift);
            }
        }
        planes[piece.to + w] = word;
    }
}
