use proptest::prelude::*;

use super::planes::tests::elements;
use super::*;

/// Random numbers, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Near to a normal distribution.
    fn weight(&mut self) -> f32 {
        let sum: f32 = (0..12).map(|_| (self.roll() >> 40) as f32 / (1 << 24) as f32).sum();
        (sum - 6.0) * 0.02
    }
}

/// Runs that models have, and that nobody has.
fn run(kind: u8, len: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed | 1);
    let mut bytes: Vec<u8> = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        match kind {
            0 => bytes.extend(dice.weight().to_le_bytes()),
            1 => bytes.extend(&dice.weight().to_le_bytes()[2..]),
            2 => bytes.extend(f64::from(dice.weight()).to_le_bytes()),
            3 => bytes.extend(dice.roll().to_le_bytes()),
            4 => bytes.extend((dice.roll() % 30_000).to_le_bytes()),
            5 => bytes.extend([0; 8]),
            6 => {
                bytes.extend([f32::NAN, f32::INFINITY, -0.0, 1.0e-42][dice.roll() as usize % 4].to_le_bytes())
            }
            7 => bytes.extend(((dice.roll() % 200) as f32 * 0.37).to_le_bytes()),
            8 => bytes.extend([(dice.roll() % 3) as u8; 300]),
            9 => bytes.extend((bytes.len() as u32).to_le_bytes()),
            // Floats that were made from 16 bits.
            10 => bytes.extend((dice.weight().to_bits() & 0xffff_0000).to_le_bytes()),
            // Groups of quantised weights behind a scale.
            12 => {
                bytes.extend(&dice.weight().to_le_bytes()[2..]);
                bytes.extend((0..32).map(|_| (dice.weight() * 300.0) as i8 as u8));
            }
            // The first half is zeros.
            _ if bytes.len() < len / 2 => bytes.push(0),
            _ => bytes.extend(dice.weight().to_le_bytes()),
        }
    }
    bytes.truncate(len);
    bytes
}

fn runs() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![0usize..40, 40usize..9_000, BLOCK - 9..BLOCK + 9, 2 * BLOCK..3 * BLOCK];
    (0u8..13, len, any::<u64>()).prop_map(|(kind, len, seed)| run(kind, len, seed))
}

/// Plain bytes of a block of numbers.
const BLOCK: usize = 64 << 10;

const CHUNK: ChunkId = ChunkId([7; 32]);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn every_kernel_codes_to_the_same_bytes_and_back(plain in runs(), element in elements()) {
        let coded = Encoder::new(Kernel::PORTABLE).encode(&plain, element, &CHUNK, None);
        for kernel in Kernel::available() {
            prop_assert_eq!(&Encoder::new(kernel).encode(&plain, element, &CHUNK, None), &coded, "{}", kernel.name());
            if let Some(coded) = &coded {
                prop_assert!(coded.len() < plain.len());
                prop_assert_eq!(&decode(kernel, coded, &CHUNK, None, plain.len()).unwrap(), &plain, "{}", kernel.name());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_blocks_are_decoded_without_the_others(
        plain in runs(),
        element in elements(),
        which: (prop::sample::Index, prop::sample::Index),
    ) {
        let Some(coded) = Encoder::new(Kernel::best()).encode(&plain, element, &CHUNK, None) else { return Ok(()) };
        let (head, blocks) = coded.split_at(PlanesHead::len_of(&coded).unwrap() as usize);
        let decoder = Decoder::new(Kernel::best(), head, &CHUNK, plain.len()).unwrap();
        let (one, other) = (which.0.index(decoder.blocks().max(1)), which.1.index(decoder.blocks().max(1)));
        let numbers = one.min(other)..one.max(other) + 1;
        if decoder.blocks() > 0 {
            let stored = decoder.stored(numbers.start).unwrap().start..decoder.stored(numbers.end - 1).unwrap().end;
            let place = decoder.plain(numbers.start).start..decoder.plain(numbers.end - 1).end;
            let mut decoded = vec![0xa5; place.len()];
            let stored = &blocks[stored.start as usize..stored.end as usize];
            decoder.decode_blocks(numbers.clone(), stored, None, &mut decoded).unwrap();
            prop_assert_eq!(&decoded[..], &plain[place]);
            // Those of another place are refused.
            if numbers.end < decoder.blocks() {
                prop_assert!(decoder.decode_blocks(1..2, stored, None, &mut decoded).is_err() || numbers == (1..2));
            }
        } else {
            let (one, other) = (which.0.index(plain.len()), which.1.index(plain.len()));
            let place = one.min(other)..one.max(other) + 1;
            let mut decoded = vec![0xa5; place.len()];
            prop_assert!(decoder.repeat(place.start, &mut decoded));
            prop_assert_eq!(&decoded[..], &plain[place]);
            prop_assert!(!decoder.repeat(plain.len(), &mut decoded));
        }
    }

    #[test]
    fn what_is_near_another_run_takes_less_and_is_had_back(
        base in runs(),
        element in elements(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4), 0..200),
        cut in 0usize..3,
    ) {
        let mut plain = base.clone();
        changes.iter().filter(|_| !base.is_empty()).for_each(|(at, bits)| *at.get_mut(&mut plain) ^= bits);
        let alone = Encoder::new(Kernel::best()).encode(&plain, element, &CHUNK, None);
        let run = Some(Base { element, bytes: &base });
        let near = Encoder::new(Kernel::best()).encode(&plain, element, &CHUNK, run);
        let Some(coded) = &near else {
            prop_assert_eq!(alone, None);
            return Ok(());
        };
        prop_assert!(alone.is_none_or(|alone| coded.len() <= alone.len()));
        for kernel in Kernel::available() {
            prop_assert_eq!(&Encoder::new(kernel).encode(&plain, element, &CHUNK, run), &near);
            let decoded = decode(kernel, coded, &CHUNK, Some(&base), plain.len());
            prop_assert_eq!(decoded.as_ref(), Ok(&plain));
        }
        // A base that is not all there is an error, unless none is needed.
        let short = base.get(..base.len().saturating_sub(8 + cut)).unwrap_or_default();
        if let Ok(decoded) = decode(Kernel::best(), coded, &CHUNK, Some(short), plain.len()) {
            prop_assert_eq!(decoded, plain);
        }
    }

    #[test]
    fn what_was_cast_takes_next_to_nothing_and_is_had_back(
        base in runs(),
        kinds in (0usize..3, 0usize..3),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4), 0..20),
        cut in 1usize..5,
        which: (prop::sample::Index, prop::sample::Index),
    ) {
        const KINDS: [Element; 3] = [Element::Half, Element::Bfloat, Element::Single];
        let (of, element) = (KINDS[kinds.0], KINDS[kinds.1]);
        let bytes = &base[..base.len() / of.width() * of.width()];
        let base = Base { element: of, bytes };
        let mut plain = base.cast(Kernel::best(), element, bytes.len() / of.width() * element.width()).unwrap().into_owned();
        changes.iter().filter(|_| !bytes.is_empty()).for_each(|(at, bits)| *at.get_mut(&mut plain) ^= bits);
        let alone = Encoder::new(Kernel::best()).encode(&plain, element, &CHUNK, None);
        let near = Encoder::new(Kernel::best()).encode(&plain, element, &CHUNK, Some(base));
        let Some(coded) = &near else {
            prop_assert!(alone.is_none() && plain.len() < 9_000);
            return Ok(());
        };
        prop_assert!(!PlanesHead::is_differences(coded) || coded.len() <= 600 + plain.len() / 20, "{} of {}", coded.len(), plain.len());
        for kernel in Kernel::available() {
            prop_assert_eq!(&Encoder::new(kernel).encode(&plain, element, &CHUNK, Some(base)), &near);
            let decoded = decode(kernel, coded, &CHUNK, Some(bytes), plain.len());
            prop_assert_eq!(decoded.as_ref(), Ok(&plain));
        }
        // Some blocks alone, and the differences without their base.
        let (head, blocks) = coded.split_at(PlanesHead::len_of(coded).unwrap() as usize);
        let decoder = Decoder::new(Kernel::best(), head, &CHUNK, plain.len()).unwrap();
        let (mut differences, of_base) = decode_without_base(Kernel::best(), coded, &CHUNK, plain.len()).unwrap();
        prop_assert_eq!(of_base, PlanesHead::is_differences(coded).then_some(of));
        if of_base.is_some() {
            let (one, other) = (which.0.index(decoder.blocks()), which.1.index(decoder.blocks()));
            let numbers = one.min(other)..one.max(other) + 1;
            let stored = decoder.stored(numbers.start).unwrap().start..decoder.stored(numbers.end - 1).unwrap().end;
            let place = decoder.plain(numbers.start).start..decoder.plain(numbers.end - 1).end;
            let share = &bytes[decoder.share_of_base(place.clone()).unwrap()];
            let mut decoded = vec![0xa5; place.len()];
            let stored = &blocks[stored.start as usize..stored.end as usize];
            decoder.decode_blocks(numbers.clone(), stored, Some(share), &mut decoded).unwrap();
            prop_assert_eq!(&decoded[..], &plain[place]);
            prop_assert!(decoder.decode_blocks(numbers, stored, Some(&share[cut.min(share.len())..]), &mut decoded).is_err());
            prop_assert!(decode(Kernel::best(), coded, &CHUNK, Some(&bytes[cut..]), plain.len()).is_err());
            let short = Base { element: of, bytes: &bytes[cut..] };
            prop_assert!(!add_base(Kernel::best(), element, &mut differences, short));
            prop_assert!(add_base(Kernel::best(), element, &mut differences, base));
            prop_assert_eq!(&differences, &plain);
        }
        // Bytes that are no whole elements are not predicted by others.
        if of != element {
            plain.push(1);
            let odd = Encoder::new(Kernel::best()).encode(&plain, element, &CHUNK, Some(base));
            prop_assert!(odd.is_none_or(|odd| !PlanesHead::is_differences(&odd)));
        }
    }

    /// Behind a checksum that is wrong nothing is looked at; where it was made for the very damage, nothing panics, and what comes
    /// is as long as was asked for.
    #[test]
    fn damage_is_an_error(
        plain in runs(),
        element in elements(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4),
        sealed: bool,
    ) {
        let Some(coded) = Encoder::new(Kernel::best()).encode(&plain, element, &CHUNK, None) else { return Ok(()) };
        let mut damaged = coded.clone();
        flips.iter().for_each(|(at, bits)| *at.get_mut(&mut damaged) ^= bits);
        let decoded = decode(Kernel::best(), &damaged, &CHUNK, None, plain.len());
        prop_assert!(damaged == coded || decoded.is_err());
        if sealed {
            let head_len = (PlanesHead::len_of(&coded).unwrap() as usize).min(damaged.len());
            let Ok(mut head) = PlanesHead::decode(&coded[..head_len], &CHUNK) else { return Ok(()) };
            let mut start = 0;
            for (number, block) in (0u32..).zip(&mut head.blocks) {
                let stored = &damaged[head_len..][start..block.end as usize];
                block.sum = PlanesHead::block_sum(&CHUNK, number, stored);
                start = block.end as usize;
            }
            flips.iter().for_each(|(at, bits)| {
                if !head.tables.is_empty() {
                    *at.get_mut(&mut head.tables) ^= bits;
                }
            });
            let mut resealed = head.encode(&CHUNK);
            resealed.extend(&damaged[head_len..]);
            let results: Vec<_> =
                Kernel::available().map(|kernel| decode(kernel, &resealed, &CHUNK, None, plain.len()).ok()).collect();
            prop_assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
            prop_assert!(results.iter().flatten().all(|decoded| decoded.len() == plain.len()));
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_as_long_as_was_asked_for(bytes: Vec<u8>, len in 0usize..200_000) {
        if let Ok(decoded) = decode(Kernel::best(), &bytes, &CHUNK, None, len) {
            prop_assert_eq!(decoded.len(), len);
        }
    }
}

fn share(kind: u8, element: Element) -> f64 {
    let plain = run(kind, 1 << 20, 5);
    let coded = Encoder::new(Kernel::best()).encode(&plain, element, &CHUNK, None);
    coded.map_or(1.0, |coded| coded.len() as f64 / plain.len() as f64)
}

#[test]
fn what_models_have_takes_less() {
    assert!(share(0, Element::Single) < 0.86);
    assert!(share(1, Element::Bfloat) < 0.70);
    // Half of the bytes are zeros, and take none.
    assert!(share(10, Element::Single) < 0.36);
    // 200 different numbers of 4 bytes.
    assert!(share(7, Element::Single) < 0.25);
    assert!(share(4, Element::Long) < 0.25);
    assert!(share(12, Element::Q8_0) < share(12, Element::Byte) - 0.02);
    assert_eq!(share(3, Element::Double), 1.0);
}

#[test]
fn a_pattern_takes_what_the_pattern_takes() {
    for period in [1, 2, 3, 16, 300] {
        let plain: Vec<u8> = (0..1 << 20).map(|i| (i % period) as u8).collect();
        let coded = Encoder::new(Kernel::best()).encode(&plain, Element::Byte, &CHUNK, None).unwrap();
        assert!(coded.len() < 400, "{period}: {}", coded.len());
    }
}

#[test]
fn a_run_is_decoded_only_where_it_belongs() {
    let plain = run(0, BLOCK, 1);
    let coded = Encoder::new(Kernel::best()).encode(&plain, Element::Single, &CHUNK, None).unwrap();
    assert!(decode(Kernel::best(), &coded, &ChunkId([8; 32]), None, plain.len()).is_err());
}

/// What any encoder has to write for these runs: changing it needs a reader of what was written before.
#[test]
fn golden_runs_are_coded_as_they_were() {
    let golden = [
        (0, Element::Single),
        (1, Element::Bfloat),
        (4, Element::Long),
        (5, Element::Byte),
        (7, Element::Single),
        (12, Element::Q8_0),
    ];
    let hashes: Vec<String> = golden
        .iter()
        .map(|(kind, element)| {
            let plain = run(*kind, 200_001, 9);
            let coded = Encoder::new(Kernel::PORTABLE).encode(&plain, *element, &CHUNK, None).unwrap();
            format!("{} {}", coded.len(), &blake3::hash(&coded).to_hex()[..16])
        })
        .collect();
    assert_eq!(
        hashes,
        [
            "155408 1369e273f6e23317",
            "132593 f515c4243a6480bc",
            "47572 6a9e1c9ba526b4ce",
            "29 840d98b8e6ab0c88",
            "49293 abf656fbfea53883",
            "114906 fbda0a56709ad8f6",
        ]
    );
}
