// Decodes a block's stream into planes: the twin of `Reader` in fs/codec/src/tensor/rans/mod.rs.
//
// A workgroup of 32 lanes to a stream. The table of 4096 symbols is a byte each here, and frequencies come by the symbol: that is
// 5 KiB of a workgroup's memory, so that many of them fit. Nothing is read beyond the stream, whatever it holds.

struct Stream {
    first: u32,
    count: u32,
    // A byte of `stored`, and bytes: the states, then words of 16 bits.
    at: u32,
    len: u32,
}

struct Run {
    plane: u32,
    len: u32,
    table: u32,
}

@group(0) @binding(0) var<storage, read> streams: array<Stream>;
@group(0) @binding(1) var<storage, read> runs: array<Run>;
// Of each symbol its frequency, and from bit 16 the sum of those of lower ones.
@group(0) @binding(2) var<storage, read> tables: array<u32>;
@group(0) @binding(3) var<storage, read> stored: array<u32>;
@group(0) @binding(4) var<storage, read_write> planes: array<u32>;
@group(0) @binding(5) var<storage, read_write> status: array<u32>;

const LANES = 32u;
const LOW = 0x8000u;
const STATES = 128u;

var<workgroup> frequencies: array<u32, 256>;
var<workgroup> symbols: array<u32, 1024>;
var<workgroup> readers: array<atomic<u32>, 3>;
var<workgroup> wrong: atomic<u32>;

fn stored_byte(at: u32) -> u32 {
    return stored[at / 4u] >> (8u * (at % 4u)) & 0xffu;
}

fn stored_short(at: u32) -> u32 {
    return stored_byte(at) | stored_byte(at + 1u) << 8u;
}

// Each lane fills the slots from 128 times its number on.
fn fill(lane: u32) {
    let first = 128u * lane;
    // The last symbol whose slots begin at the first of these or before.
    var symbol = 0u;
    for (var bit = 128u; bit > 0u; bit >>= 1u) {
        if frequencies[symbol + bit] >> 16u <= first {
            symbol += bit;
        }
    }
    for (var w = 0u; w < 32u; w++) {
        var word = 0u;
        for (var j = 0u; j < 4u; j++) {
            let slot = first + 4u * w + j;
            while symbol < 255u && slot >= (frequencies[symbol] >> 16u) + (frequencies[symbol] & 0xffffu) {
                symbol++;
            }
            word |= symbol << (8u * j);
        }
        symbols[first / 4u + w] = word;
    }
}

@compute @workgroup_size(32)
fn decode(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let stream = streams[group.x];
    let last = stream.at + stream.len;
    var x = stored_short(stream.at + 4u * lane) | stored_short(stream.at + 4u * lane + 2u) << 16u;
    var at = stream.at + STATES;
    var turn = 0u;
    if lane < 3u {
        atomicStore(&readers[lane], 0u);
    }
    if lane == 0u {
        atomicStore(&wrong, 0u);
    }
    for (var number = 0u; number < stream.count; number++) {
        let run = runs[stream.first + number];
        workgroupBarrier();
        for (var symbol = lane; symbol < 256u; symbol += LANES) {
            frequencies[symbol] = tables[run.table * 256u + symbol];
        }
        workgroupBarrier();
        fill(lane);
        workgroupBarrier();
        for (var g = 0u; g < (run.len + 127u) / 128u; g++) {
            let first = 128u * g + 4u * lane;
            var quad = 0u;
            for (var k = 0u; k < 4u; k++) {
                let there = first + k < run.len;
                if there {
                    let slot = x & 0xfffu;
                    let symbol = symbols[slot / 4u] >> (8u * (slot % 4u)) & 0xffu;
                    let entry = frequencies[symbol];
                    quad |= symbol << (8u * k);
                    x = (entry & 0xffffu) * (x >> 12u) + slot - (entry >> 16u);
                }
                let wants = there && x < LOW;
                if wants {
                    atomicOr(&readers[turn], 1u << lane);
                }
                workgroupBarrier();
                let mask = atomicLoad(&readers[turn]);
                if lane == 0u {
                    atomicStore(&readers[(turn + 2u) % 3u], 0u);
                }
                turn = (turn + 1u) % 3u;
                if wants {
                    let word = at + 2u * countOneBits(mask & ((1u << lane) - 1u));
                    if word + 2u <= last {
                        x = x << 16u | stored_short(word);
                    } else {
                        atomicStore(&wrong, 1u);
                    }
                }
                at = min(at + 2u * countOneBits(mask), last + 2u);
            }
            if first < run.len {
                planes[run.plane + first / 4u] = quad;
            }
        }
    }
    if x != LOW || at != last {
        atomicStore(&wrong, 1u);
    }
    workgroupBarrier();
    if lane == 0u {
        status[group.x] = atomicLoad(&wrong);
    }
}
