// Codes the planes of a block into a stream: the twin of `Writer` in fs/codec/src/tensor/rans/mod.rs.
//
// A workgroup of 32 lanes to a stream, as the format has them. Which lanes write a word is told by way of the workgroup's memory and
// a barrier, so that it does not matter how many lanes the device moves at once. Words are collected there, too, and written two by
// two, from the end of the stream's place down.

struct Stream {
    // Its planes among `runs`.
    first: u32,
    count: u32,
    // In `coded`: how many words of 16 bits there are, the states, and room for the words.
    out: u32,
    room: u32,
}

struct Run {
    plane: u32,
    len: u32,
    steps: u32,
}

@group(0) @binding(0) var<storage, read> streams: array<Stream>;
@group(0) @binding(1) var<storage, read> runs: array<Run>;
@group(0) @binding(2) var<storage, read> all_steps: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> planes: array<u32>;
@group(0) @binding(4) var<storage, read_write> coded: array<u32>;

const LANES = 32u;
const LOW = 0x8000u;
const STAGED = 256u;

var<workgroup> steps: array<vec2<u32>, 256>;
// A bit for each lane that writes; in turn, so that one can be emptied while another is used.
var<workgroup> writers: array<atomic<u32>, 3>;
// Words that are not written yet, by their number from the end.
var<workgroup> staged: array<u32, STAGED>;

fn product_high(a: u32, b: u32) -> u32 {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
    return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u);
}

@compute @workgroup_size(32)
fn encode(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let stream = streams[group.x];
    let end = stream.out + 1u + LANES + stream.room;
    var x = LOW;
    // Words so far, and how many pairs of them are written.
    var words = 0u;
    var pairs = 0u;
    var turn = 0u;
    if lane < 3u {
        atomicStore(&writers[lane], 0u);
    }
    for (var before = stream.count; before > 0u; before--) {
        let run = runs[stream.first + before - 1u];
        workgroupBarrier();
        for (var symbol = lane; symbol < 256u; symbol += LANES) {
            steps[symbol] = all_steps[run.steps * 256u + symbol];
        }
        workgroupBarrier();
        for (var above = (run.len + 127u) / 128u; above > 0u; above--) {
            let first = 128u * (above - 1u) + 4u * lane;
            var quad = 0u;
            if first < run.len {
                quad = planes[run.plane + first / 4u];
            }
            for (var k = 4u; k > 0u; k--) {
                let there = first + k - 1u < run.len;
                let step = steps[quad >> (8u * (k - 1u)) & 0xffu];
                let frequency = step.y & 0xfffu;
                let full = there && x >= frequency << 19u;
                if full {
                    atomicOr(&writers[turn], 1u << lane);
                }
                workgroupBarrier();
                let mask = atomicLoad(&writers[turn]);
                if lane == 0u {
                    atomicStore(&writers[(turn + 2u) % 3u], 0u);
                }
                turn = (turn + 1u) % 3u;
                if full {
                    // Lanes above come first.
                    let number = words + countOneBits((mask >> lane) >> 1u);
                    staged[number % STAGED] = x & 0xffffu;
                    x >>= 16u;
                }
                words += countOneBits(mask);
                if there {
                    let quotient = product_high(x, step.x) >> (step.y >> 25u);
                    x += (step.y >> 12u & 0x1fffu) + quotient * (4096u - frequency);
                }
            }
            workgroupBarrier();
            // No more than 129 words wait here, and 32 more are put behind them before all lanes are past the next barrier.
            for (var pair = pairs + lane; pair < words / 2u; pair += LANES) {
                if pair < stream.room {
                    coded[end - 1u - pair] = staged[2u * pair % STAGED] << 16u | staged[(2u * pair + 1u) % STAGED];
                }
            }
            pairs = words / 2u;
        }
    }
    workgroupBarrier();
    if lane == 0u {
        coded[stream.out] = words;
        if words % 2u == 1u && pairs < stream.room {
            coded[end - 1u - pairs] = staged[2u * pairs % STAGED] << 16u;
        }
    }
    coded[stream.out + 1u + lane] = x;
}
