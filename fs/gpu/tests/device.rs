//! What a device writes and reads, held against the codec, with whatever Vulkan there is: lavapipe, which computes on the processor, will do.

use std::process::Command;
use std::time::Duration;

use cairn_codec::tensor::{self, Base, Encoder, Kernel};
use cairn_format::{ChunkId, Element, PlanesHead};
use cairn_gpu::{Choice, Coded, Device, Run};

fn device() -> Device {
    Device::open(Choice::Any).unwrap_or_else(|error| {
        panic!("{error}. These tests need a driver for Vulkan: Debian's package mesa-vulkan-drivers has one")
    })
}

/// Random numbers, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, most: u64) -> usize {
        (self.roll() >> 11).checked_rem(most).unwrap_or(0) as usize
    }

    /// Near to a normal distribution.
    fn weight(&mut self) -> f32 {
        let sum: f32 = (0..4).map(|_| (self.roll() >> 40) as f32 / (1 << 24) as f32).sum();
        (sum - 2.0) * 0.02
    }
}

const BLOCK: usize = 64 << 10;
const KINDS: u64 = 14;

/// Bytes that models have, and that nobody has.
fn bytes(dice: &mut Dice, kind: usize, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::with_capacity(len + 300);
    let few = dice.roll();
    while bytes.len() < len {
        match kind {
            0 => bytes.extend(dice.weight().to_le_bytes()),
            1 => bytes.extend(&dice.weight().to_le_bytes()[2..]),
            2 => bytes.extend(f64::from(dice.weight()).to_le_bytes()),
            // Uniform noise.
            3 => bytes.extend(dice.roll().to_le_bytes()),
            4 => bytes.extend((dice.roll() % 30_000).to_le_bytes()),
            // One symbol.
            5 => bytes.extend([few as u8; 8]),
            // NaNs with any payload, infinities, zeros of both signs, denormals.
            6 => {
                let payload = dice.roll() as u32 & 0x007f_ffff;
                let sign = (dice.roll() as u32) << 31;
                let exponent = [0x7f80_0000, 0, 0x7f80_0000, 0][dice.below(4)];
                let fraction = if dice.below(3) == 0 { 0 } else { payload };
                bytes.extend((sign | exponent | fraction).to_le_bytes());
            }
            7 => bytes.extend(((dice.roll() % 200) as f32 * 0.37).to_le_bytes()),
            8 => bytes.extend([dice.below(3) as u8; 300]),
            9 => bytes.extend((bytes.len() as u32).to_le_bytes()),
            10 => bytes.extend((dice.weight().to_bits() & 0xffff_0000).to_le_bytes()),
            11 => {
                bytes.extend(&dice.weight().to_le_bytes()[2..]);
                bytes.extend((0..32).map(|_| (dice.weight() * 300.0) as i8 as u8));
            }
            // One symbol nearly always: frequencies of 1 and of 4095.
            12 => bytes.push(if dice.below(2000) == 0 { few as u8 } else { 77 }),
            // Two symbols.
            _ => bytes.push(if dice.roll() >> 63 == 0 { few as u8 } else { 255 }),
        }
    }
    bytes.truncate(len);
    bytes
}

fn len(dice: &mut Dice) -> usize {
    match dice.below(100) {
        0 | 1 => 0,
        2 | 3 => 1,
        4..30 => dice.below(40),
        30..90 => 40 + dice.below(9000),
        90..98 => BLOCK - 9 + dice.below(18),
        _ => 2 * BLOCK + dice.below(BLOCK as u64),
    }
}

struct Input {
    plain: Vec<u8>,
    base: Option<(Element, Vec<u8>)>,
    element: Element,
    chunk: ChunkId,
}

impl Input {
    fn roll(dice: &mut Dice) -> Input {
        let elements: Vec<Element> = Element::all().collect();
        let (element, len) = (elements[dice.below(elements.len() as u64)], len(dice));
        let kind = dice.below(KINDS);
        let mut plain = bytes(dice, kind, len);
        let base = (dice.below(5) == 0).then(|| match (element, dice.below(2)) {
            // What these are when they are cast.
            (Element::Bfloat, 1) => {
                let single = |bytes: &[u8; 2]| [dice.roll() as u8, dice.below(128) as u8, bytes[0], bytes[1]];
                (Element::Single, plain.as_chunks().0.iter().flat_map(single).collect())
            }
            (Element::Single, 1) => {
                let upper = |bytes: &[u8; 4]| [bytes[2], bytes[3]];
                (Element::Bfloat, plain.as_chunks().0.iter().flat_map(upper).collect())
            }
            _ => (element, plain.clone()),
        });
        if base.is_some() && len > 0 {
            for _ in 0..dice.below(200) {
                plain[dice.below(len as u64)] ^= 1 << dice.below(3);
            }
        }
        Input { plain, base, element, chunk: ChunkId(std::array::from_fn(|_| dice.roll() as u8)) }
    }

    fn base(&self) -> Option<Base<'_>> {
        self.base.as_ref().map(|(element, bytes)| Base { element: *element, bytes })
    }

    fn base_bytes(&self) -> Option<&[u8]> {
        self.base().map(|base| base.bytes)
    }

    fn run(&self) -> Run<'_> {
        Run { plain: &self.plain, element: self.element, chunk: self.chunk, base: self.base() }
    }

    fn encoded(&self) -> Option<Vec<u8>> {
        Encoder::new(Kernel::best()).encode(&self.plain, self.element, &self.chunk, self.base())
    }

    fn coded<'r>(&'r self, stored: &'r [u8]) -> Coded<'r> {
        Coded { stored, chunk: self.chunk, base: self.base_bytes(), plain_len: self.plain.len() }
    }

    fn decoded(&self, stored: &[u8]) -> Result<Vec<u8>, tensor::RunError> {
        tensor::decode(Kernel::best(), stored, &self.chunk, self.base_bytes(), self.plain.len())
    }
}

/// How many inputs are tried.
fn cases() -> usize {
    std::env::var("CAIRN_GPU_CASES")
        .map_or(10_000, |cases| cases.parse().expect("CAIRN_GPU_CASES is a number"))
}

#[test]
fn a_device_codes_to_the_bytes_of_the_processor_and_back() {
    let mut device = device();
    let mut dice = Dice(0x5eed);
    let mut coded_by_planes = 0;
    let mut left = cases();
    while left > 0 {
        let inputs: Vec<Input> = (0..left.min(1000)).map(|_| Input::roll(&mut dice)).collect();
        left -= inputs.len();
        let coded = device.encode(&inputs.iter().map(Input::run).collect::<Vec<_>>()).unwrap();
        for (input, coded) in inputs.iter().zip(&coded) {
            assert!(*coded == input.encoded(), "{:?}, {} bytes", input.element, input.plain.len());
        }
        let there: Vec<(&Input, &Vec<u8>)> =
            inputs.iter().zip(&coded).filter_map(|(input, coded)| Some((input, coded.as_ref()?))).collect();
        coded_by_planes += there.len();
        let runs: Vec<Coded<'_>> = there.iter().map(|(input, coded)| input.coded(coded)).collect();
        for ((input, _), decoded) in there.iter().zip(device.decode(&runs).unwrap()) {
            assert!(decoded.as_ref() == Ok(&input.plain), "{:?}, {} bytes", input.element, input.plain.len());
        }
    }
    assert!(coded_by_planes > cases() / 3, "{coded_by_planes}");
    assert_eq!(device.redone(), 0, "the processor did what the device is for");
}

/// A run that is cut to many blocks, of each kind of element, and a batch that takes several dispatches.
#[test]
fn long_runs_go_through_in_batches() {
    let mut device = device();
    let mut dice = Dice(77);
    let most = device.batch();
    let mut inputs = Vec::new();
    for (kind, element) in Element::all().enumerate() {
        let plain = bytes(&mut dice, [0, 1, 11][kind % 3], (1 << 20) + 13);
        inputs.push(Input { plain, base: None, element, chunk: ChunkId([3; 32]) });
    }
    let coded: Vec<_> = inputs.iter().map(Input::encoded).collect();
    let runs: Vec<Run<'_>> = inputs.iter().map(Input::run).collect();
    assert!(device.encode(&runs).unwrap() == coded);
    // The same over and over: more than a batch holds.
    let times = most / (inputs.len() << 20) + 1;
    let many: Vec<Run<'_>> = runs.iter().copied().cycle().take(times * runs.len()).collect();
    let again = device.encode(&many).unwrap();
    assert!(again.chunks(coded.len()).all(|part| *part == coded[..]));
    let stored = inputs.iter().zip(&coded).filter_map(|(input, coded)| Some(input.coded(coded.as_ref()?)));
    let stored: Vec<Coded<'_>> = stored.collect();
    let many: Vec<Coded<'_>> = stored.iter().copied().cycle().take(times * stored.len()).collect();
    let decoded = device.decode(&many).unwrap();
    let plain = inputs.iter().zip(&coded).filter(|(_, coded)| coded.is_some()).map(|(input, _)| &input.plain);
    assert!(decoded.iter().map(|run| run.as_ref().unwrap()).eq(plain.cycle().take(decoded.len())));
}

/// A batch of one that is too large for the device's buffers is coded without it.
#[test]
fn a_run_that_no_batch_holds_is_coded_all_the_same() {
    let mut device = device();
    let plain = bytes(&mut Dice(9), 1, device.batch() + 5);
    let input = Input { plain, base: None, element: Element::Bfloat, chunk: ChunkId([9; 32]) };
    let coded = device.encode(&[input.run()]).unwrap().remove(0).unwrap();
    assert!(Some(&coded) == input.encoded().as_ref());
    assert!(device.decode(&[input.coded(&coded)]).unwrap().remove(0).unwrap() == input.plain);
}

/// Checksums are made for the very damage, so that it reaches the kernels.
#[test]
fn a_device_says_of_damage_what_the_processor_says() {
    let mut device = device();
    let mut dice = Dice(0xbad);
    let mut inputs = Vec::new();
    while inputs.len() < cases() / 20 {
        let input = Input::roll(&mut dice);
        if let Some(coded) = input.encoded() {
            let damaged = damaged(&mut dice, &input, coded);
            inputs.push((input, damaged));
        }
    }
    let runs: Vec<Coded<'_>> = inputs.iter().map(|(input, damaged)| input.coded(damaged)).collect();
    let decoded = device.decode(&runs).unwrap();
    let mut errors = 0;
    for ((input, damaged), decoded) in inputs.iter().zip(decoded) {
        errors += usize::from(decoded.is_err());
        assert!(decoded == input.decoded(damaged), "{:?}, {} bytes", input.element, input.plain.len());
    }
    assert!(errors > inputs.len() / 3, "{errors}");
}

fn damaged(dice: &mut Dice, input: &Input, mut coded: Vec<u8>) -> Vec<u8> {
    let head_len = PlanesHead::len_of(&coded).expect("a head") as usize;
    let mut head = PlanesHead::decode(&coded[..head_len], &input.chunk).expect("a head");
    let blocks = coded.len() - head_len;
    for _ in 0..dice.below(4) {
        if blocks > 0 {
            coded[head_len + dice.below(blocks as u64)] ^= 1 << dice.below(8);
        }
    }
    if dice.below(4) == 0 && !head.tables.is_empty() {
        let at = dice.below(head.tables.len() as u64);
        head.tables[at] ^= 1 << dice.below(8);
    }
    let mut start = head_len;
    for (number, block) in (0u32..).zip(&mut head.blocks) {
        let end = head_len + block.end as usize;
        block.sum = PlanesHead::block_sum(&input.chunk, number, &coded[start..end]);
        start = end;
    }
    let mut sealed = head.encode(&input.chunk);
    sealed.extend(&coded[head_len..]);
    sealed
}

fn weights(len: usize) -> Input {
    let plain = bytes(&mut Dice(5), 1, len);
    Input { plain, base: None, element: Element::Bfloat, chunk: ChunkId([5; 32]) }
}

#[test]
fn a_device_that_is_lost_says_so_ever_after() {
    let mut device = device();
    let input = weights(1 << 20);
    let coded = device.encode(&[input.run()]).unwrap().remove(0).unwrap();
    device.destroyer()();
    let lost = device.encode(&[input.run()]).unwrap_err();
    assert!(lost.to_string().contains("is no longer used"), "{lost}");
    assert_eq!(device.encode(&[input.run()]).unwrap_err(), lost);
    assert_eq!(device.decode(&[input.coded(&coded)]).unwrap_err(), lost);
}

#[test]
fn a_device_that_is_lost_at_work_gives_right_bytes_or_none() {
    let input = weights(4 << 20);
    let expected = input.encoded();
    for wait in [0, 1, 3, 10, 30, 100] {
        let mut device = device();
        let destroy = device.destroyer();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(wait));
            destroy();
        });
        for _ in 0..1000 {
            match device.encode(&[input.run()]) {
                Ok(coded) => assert!(coded[0] == expected),
                Err(_) => break,
            }
        }
        killer.join().unwrap();
        assert!(device.encode(&[input.run()]).is_err());
    }
}

#[test]
fn a_device_that_does_not_answer_in_time_is_lost() {
    let mut device = device();
    let input = weights(8 << 20);
    device.set_timeout(Duration::ZERO);
    let lost = device.encode(&[input.run()]).unwrap_err();
    assert!(lost.to_string().contains("did not answer"), "{lost}");
    device.set_timeout(Duration::from_secs(60));
    assert_eq!(device.encode(&[input.run()]).unwrap_err(), lost);
}

#[test]
fn a_driver_that_computes_on_the_processor_is_no_graphics_processor() {
    // Where there is a real one this opens it.
    match Device::open(Choice::Hardware) {
        Ok(device) => assert!(device.is_hardware()),
        Err(error) => assert!(error.to_string().starts_with("no graphics processor can be used"), "{error}"),
    }
}

#[test]
fn without_a_driver_there_is_no_device_and_that_is_said() {
    // Drivers are looked for once in a process, where its environment says.
    let there_is_none = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_without_a_driver", "--ignored"])
        .envs([("VK_ICD_FILENAMES", "/nowhere/none.json"), ("VK_DRIVER_FILES", "/nowhere/none.json")])
        .output()
        .unwrap();
    assert!(there_is_none.status.success(), "{}", String::from_utf8_lossy(&there_is_none.stdout));
}

#[test]
#[ignore = "the test before runs it, where drivers are hidden"]
fn child_without_a_driver() {
    let error = Device::open(Choice::Any).err().expect("there is no driver");
    assert!(error.to_string().contains("Vulkan knows none"), "{error}");
}
