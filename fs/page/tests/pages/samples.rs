//! Pages as they might be.

use cairn_page::{Finding, Map, Margin, Pack, PackState, Page, Savings, Severity, Shown, Verdict};

const NOW: u64 = 1_795_237_998;
const DAY: u64 = 86_400;
const GUARANTEE: &str = "16+2: any 2 bad sectors of a pack; any hole up to 7.9 MiB in a pack of 64 MiB; not a missing pack; metadata 16+4";

pub(crate) fn pack(number: u32, state: PackState) -> Pack {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&0x8447_af9f_1c82_943f_u64.to_be_bytes());
    id[8..12].copy_from_slice(&(1 + number / 40).to_be_bytes());
    id[12..].copy_from_slice(&number.to_be_bytes());
    let seen = state != PackState::Unseen;
    Pack {
        id,
        len: 71 << 20,
        state,
        seen,
        verified: seen.then_some(NOW),
        corrected: 0,
        uncorrected: 0,
        margin: None,
    }
}

fn margin(used: u16) -> Option<Margin> {
    Some(Margin { data: 16, parity: 2, used })
}

pub(crate) fn clean() -> Page {
    Page {
        command: "cairn scrub".into(),
        version: "0.1.0".into(),
        dir: Shown::new(b"/srv/photos"),
        label: "photos".into(),
        uuid: Some("607e66a9-ea73-4a8f-a348-b9a80041be42".into()),
        made: NOW,
        seconds: 312.4,
        verdict: Verdict::Whole,
        lost: false,
        sentence: "Every byte of 24 packs is as it was written.".into(),
        notes: Vec::new(),
        map: Some(Map::of((1..=24).map(|n| pack(n, PackState::Whole)).collect(), NOW)),
        totals: vec![
            ("sectors-checked", "Sectors of 4 KiB checked", 436_224),
            ("sectors-corrected", "corrected", 0),
            ("sectors-uncorrected", "damaged still", 0),
            ("sectors-total", "in all", 436_224),
        ],
        findings: Vec::new(),
        more: false,
        savings: Some(Savings {
            logical: 9_400 << 20,
            unique: 3_900 << 20,
            stored: 1_440 << 20,
            metadata: 38 << 20,
            parity: 196 << 20,
            journal: 0,
        }),
        guarantee: Some(GUARANTEE.into()),
    }
}

fn lost(name: &[u8], ranges: &[(u64, u64)]) -> Finding {
    Finding {
        names: vec![Shown::new(name)],
        inode: Some(1_234),
        ranges: ranges.to_vec(),
        pack: Some("8447af9f1c82943f0000000200000031".into()),
        ..Finding::new(
            Severity::Damage,
            "lost-bytes",
            "frame 12 cannot be read: its checksum is not that of its bytes",
        )
    }
}

pub(crate) fn damaged() -> Page {
    let mut packs: Vec<_> = (1..=180).map(|n| pack(n, PackState::Whole)).collect();
    for (number, used, corrected) in [(12, 1, 3), (13, 2, 1_985), (77, 1, 1)] {
        packs[number] =
            Pack { corrected, margin: margin(used), ..pack(number as u32 + 1, PackState::Healed) };
    }
    packs[48] = Pack { uncorrected: 6_020, margin: margin(6), corrected: 12, ..pack(49, PackState::Lost) };
    packs[121] = Pack { uncorrected: 1, len: 0, ..pack(122, PackState::Lost) };
    packs[90] = Pack { uncorrected: 4, margin: margin(1), ..pack(91, PackState::Damaged) };
    for (number, known) in packs.iter_mut().enumerate().skip(140) {
        *known = Pack {
            verified: (number % 7 > 1).then_some(NOW - number as u64 * 3 * DAY),
            ..pack(number as u32 + 1, PackState::Unseen)
        };
    }
    let long = "/photos/".to_string() + &"a-long-directory-name/".repeat(8) + "the last one.jpg";
    let place = |at, what: &str, done: Option<&str>| Finding {
        place: Some("store/packs/31/8447af9f1c82943f0000000200000031.pack".into()),
        at: Some(at),
        len: Some(12_288),
        pack: Some("8447af9f1c82943f0000000200000031".into()),
        done: done.map(Into::into),
        ..Finding::new(Severity::Damage, "frame", what)
    };
    let findings = vec![
        Finding {
            names: vec![Shown::new(b"/photos/2019/one.jpg"), Shown::new(b"/linked/two.jpg")],
            ..lost(b"", &[(0, 262_144), (1_048_576, 65_536)])
        },
        lost(long.as_bytes(), &[(4_294_967_296, 131_072)]),
        lost(b"/<script>alert(1)</script>", &[(0, 1)]),
        lost(b"/\"><img src=x onerror=alert(1)>", &[(0, 4_096)]),
        lost("/invoice\u{202e}gpj.exe".as_bytes(), &[(0, 4_096)]),
        lost(b"/two\nlines", &[(0, 4_096)]),
        lost(b"/not UTF-8 \xff\xfe", &[(0, 4_096)]),
        lost(br"/a\xff", &[(0, 4_096)]),
        lost(
            "/עברית/日本語 & Grüße.txt".as_bytes(),
            &(0..9).map(|n| (n * 1_000_000, 4_096)).collect::<Vec<_>>(),
        ),
        Finding { names: Vec::new(), done: Some("ZEROED".into()), ..lost(b"", &[(0, 4_096)]) },
        place(300_000, "frame 12: its checksum is not that of its bytes", None),
        place(900_000, "its parity is damaged", Some("WRITTEN AGAIN")),
        Finding {
            place: Some("superblock.backup".into()),
            advice: Some("copy the good superblock over it".into()),
            ..Finding::new(
                Severity::Damage,
                "superblock-replica",
                "this copy of the superblock cannot be used, the other can",
            )
        },
        Finding {
            place: Some("store/index".into()),
            done: Some("REMOVED".into()),
            ..Finding::new(Severity::Cache, "index", "its checksum is wrong")
        },
    ];
    Page {
        command: "fsck.cairn -p".into(),
        verdict: Verdict::Damaged,
        lost: true,
        sentence: "3 findings were corrected, 11 are left: bytes of 10 files are lost.".into(),
        notes: vec![
            "The run ended before everything was looked at: its time was over. The next one goes on.".into(),
        ],
        map: Some(Map::of(packs, NOW)),
        findings,
        ..clean()
    }
}

pub(crate) fn large(packs: u32) -> Page {
    let state = |n: u32| match n {
        n if n % 1_931 == 7 => PackState::Lost,
        n if n % 733 == 11 => PackState::Healed,
        n if n > packs * 9 / 10 => PackState::Unseen,
        _ => PackState::Whole,
    };
    let all = (0..packs).map(|n| Pack {
        verified: Some(NOW - u64::from(n % 900) * DAY / 2),
        corrected: u64::from(state(n) == PackState::Healed) * 3,
        uncorrected: u64::from(state(n) == PackState::Lost) * 40,
        margin: (state(n) > PackState::Unseen)
            .then(|| margin(if state(n) == PackState::Lost { 3 } else { 1 }))
            .flatten(),
        ..pack(n, state(n))
    });
    Page {
        label: "a store of twenty thousand packs".into(),
        verdict: Verdict::Damaged,
        lost: true,
        sentence: "440 sectors are damaged still: bytes of 1 file are lost.".into(),
        map: Some(Map::of(all.collect(), NOW)),
        findings: vec![lost(b"/one/of/many", &[(0, 163_840)])],
        ..clean()
    }
}
