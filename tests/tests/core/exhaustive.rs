//! All workloads of one and of two operations, over a small tree that is folded already: each kind on each of a few
//! names, with or without an fsync behind it, the power cut at every operation of the disk. (CrashMonkey and ACE, Mohan
//! et al., OSDI 2018.)

use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use cairn_tests::dice::Dice;
use cairn_tests::driver::Driver;
use cairn_tests::model::{Id, Model, ROOT, Set};
use cairn_tests::ops::{Answer, Op, UPKEEP};
use cairn_tests::tree;
use cairn_tests::world::{World, small};
use cairn_volume::{Allocate, Caller, RenameMode, XattrMode};

use super::crash::{
    Counts, Ops, Past, Present, crashed, cuts, live, on_all_cores, random_crash, random_survival,
};
use super::crash::{check, told};

/// A volume with a small tree in its packs, and the model of that.
fn base() -> &'static (World, Present) {
    static BASE: OnceLock<(World, Present)> = OnceLock::new();
    BASE.get_or_init(|| prepared(World::make(&small())))
}

fn prepared(world: World) -> (World, Present) {
    let Present { mut model, inos } = Present::new();
    let mut driver = Driver::new(world.open().expect("mount"), inos);
    let mut act = |op: Op| {
        let next = model.next_id();
        assert_eq!(driver.apply(&op, next), op.on_model(&mut model), "{op:?}");
        next
    };
    let foo = act(create(ROOT, b"foo"));
    act(write(foo, 0, 5_000, 14));
    let bar = act(create(ROOT, b"bar"));
    act(write(bar, 0, 3_000, 3));
    let a = act(mkdir(ROOT, b"A"));
    let inner = act(create(a, b"foo"));
    act(write(inner, 0, 3_000, 3));
    act(Op::Link { id: bar, dir: a, name: b"bar".to_vec() });
    act(Op::SetXattr { id: foo, name: b"user.one".to_vec(), len: 20, seed: 15, mode: XattrMode::Set });
    act(mkdir(ROOT, b"B"));
    driver.volume.close().expect("close");
    drop(driver);
    let volume = world.open().expect("mount");
    let found = tree::of_volume(&volume).expect("tree");
    let model = model.remounted();
    let inos = Driver::learn(volume.clone(), &tree::of_model(&model), &found).inos;
    volume.close().expect("close");
    drop(volume);
    (world.fork(), Present { model, inos })
}

fn root() -> Caller {
    Caller { uid: 0, gid: 0 }
}

fn create(dir: Id, name: &[u8]) -> Op {
    Op::Create { dir, name: name.to_vec(), mode: 0o644, umask: 0, owner: root() }
}

fn mkdir(dir: Id, name: &[u8]) -> Op {
    Op::Mkdir { dir, name: name.to_vec(), mode: 0o755, umask: 0, owner: root() }
}

fn write(id: Id, offset: u64, len: usize, seed: u64) -> Op {
    Op::Write { id, offset, len, seed, clear: false }
}

/// What a path leads to.
fn at(model: &Model, path: &str) -> Option<Id> {
    path.split('/').try_fold(ROOT, |dir, name| model.lookup(dir, name.as_bytes()).ok().flatten())
}

/// The directory of a path, and its last name.
fn place(model: &Model, path: &str) -> Option<(Id, Vec<u8>)> {
    match path.rsplit_once('/') {
        Some((dir, name)) => Some((at(model, dir)?, name.as_bytes().to_vec())),
        None => Some((ROOT, path.as_bytes().to_vec())),
    }
}

/// An operation by paths: none where what it acts on is not there.
type Act = Box<dyn Fn(&Model) -> Option<Op> + Send + Sync>;

/// All operations.
fn acts() -> &'static [Act] {
    static ACTS: OnceLock<Vec<Act>> = OnceLock::new();
    ACTS.get_or_init(|| {
        let mut acts: Vec<Act> = Vec::new();
        for path in ["new", "A/new"] {
            acts.push(Box::new(move |m| place(m, path).map(|(dir, name)| create(dir, &name))));
            acts.push(Box::new(move |m| place(m, path).map(|(dir, name)| mkdir(dir, &name))));
        }
        acts.push(Box::new(|m| {
            place(m, "A/new").map(|(dir, name)| Op::Symlink { dir, name, target: b"foo".to_vec() })
        }));
        acts.push(Box::new(|m| place(m, "new").map(|(dir, name)| Op::Mknod { dir, name })));
        for (file, new) in [("foo", "A/new"), ("bar", "new"), ("new", "B/new")] {
            acts.push(Box::new(move |m| {
                let (dir, name) = place(m, new)?;
                Some(Op::Link { id: at(m, file)?, dir, name })
            }));
        }
        for path in ["foo", "bar", "A/foo", "new"] {
            acts.push(Box::new(move |m| {
                at(m, path)?;
                place(m, path).map(|(dir, name)| Op::Unlink { dir, name })
            }));
        }
        acts.push(Box::new(|m| place(m, "B").map(|(dir, name)| Op::Rmdir { dir, name })));
        let renames = [
            ("foo", "bar", RenameMode::Replace),
            ("foo", "new", RenameMode::Replace),
            ("new", "foo", RenameMode::Replace),
            ("A/foo", "foo", RenameMode::Replace),
            ("bar", "A/foo", RenameMode::Replace),
            ("A", "B", RenameMode::Replace),
            ("B", "A/B", RenameMode::NoReplace),
            ("foo", "A/foo", RenameMode::Exchange),
            ("A", "foo", RenameMode::Exchange),
        ];
        for (from, to, mode) in renames {
            acts.push(Box::new(move |m| {
                let ((from, name), (to, new)) = (place(m, from)?, place(m, to)?);
                Some(Op::Rename { from, name, to, new, mode })
            }));
        }
        for path in ["foo", "bar", "new"] {
            // Over its front, at its end, behind it, over all of it by what another file holds.
            for (offset, len, seed) in [(0, 1_000, 22), (u64::MAX, 700, 30), (9_000, 500, 38), (0, 3_000, 3)]
            {
                acts.push(Box::new(move |m| {
                    let id = at(m, path)?;
                    let size = m.content(id).ok()?.size;
                    Some(write(id, if offset == u64::MAX { size } else { offset }, len, seed))
                }));
            }
        }
        for (path, size) in [("foo", 0), ("foo", 1_234), ("bar", 8_000), ("new", 100)] {
            acts.push(Box::new(move |m| {
                let set = Set { size: Some(size), ..Set::default() };
                Some(Op::SetAttr { id: at(m, path)?, set, caller: 0 })
            }));
        }
        let ways = [
            Allocate::Reserve,
            Allocate::ReserveKeepSize,
            Allocate::Zero,
            Allocate::ZeroKeepSize,
            Allocate::Punch,
        ];
        for how in ways {
            acts.push(Box::new(move |m| {
                Some(Op::Allocate { id: at(m, "foo")?, offset: 4_096, len: 4_096, how, clear: false })
            }));
        }
        for (from, to) in [("foo", "bar"), ("bar", "new"), ("A/foo", "foo")] {
            acts.push(Box::new(move |m| {
                Some(Op::Copy {
                    from: (at(m, from)?, 100),
                    to: (at(m, to)?, 2_000),
                    len: 2_500,
                    clear: false,
                })
            }));
        }
        for (path, seed) in [("foo", 46), ("A", 54)] {
            acts.push(Box::new(move |m| {
                let name = b"user.one".to_vec();
                Some(Op::SetXattr { id: at(m, path)?, name, len: 50, seed, mode: XattrMode::Set })
            }));
        }
        acts.push(Box::new(|m| Some(Op::RemoveXattr { id: at(m, "foo")?, name: b"user.one".to_vec() })));
        acts.push(Box::new(|m| {
            let set = Set { mode: Some(0o600), uid: Some(3), ..Set::default() };
            Some(Op::SetAttr { id: at(m, "foo")?, set, caller: 0 })
        }));
        acts.push(Box::new(|m| Some(Op::Open { id: at(m, "foo")?, truncate: None })));
        acts.push(Box::new(|_| Some(Op::Upkeep(UPKEEP[0]))));
        acts.push(Box::new(|_| Some(Op::Sync)));
        acts
    })
}

/// A workload of up to two operations, each with an fsync of the root behind it or not.
#[derive(Clone, Copy, Debug)]
struct Short {
    acts: [Option<usize>; 2],
    syncs: [bool; 2],
}

impl Short {
    /// What it does `i`th. Where an operation has nothing to act on, the workload is over.
    fn op(&self, i: usize, model: &Model) -> Option<Op> {
        let list = [
            self.acts[0].map(Some),
            self.syncs[0].then_some(None),
            self.acts[1].map(Some),
            self.syncs[1].then_some(None),
        ];
        match list.into_iter().flatten().nth(i)? {
            Some(act) => acts()[act](model),
            None => Some(Op::Fsync { id: ROOT }),
        }
    }

    fn shown(&self, model: &Model) -> String {
        let mut model = model.clone();
        let mut text = String::new();
        for i in 0.. {
            let Some(op) = self.op(i, &model) else { break };
            let answer = op.on_model(&mut model);
            text += &format!("\n  {op:?}");
            if let Answer::Failed(error) = answer {
                text += &format!(" ({error})");
            }
        }
        text
    }
}

fn run(world: &World, present: &Present, short: &Short, close: bool) -> Result<Past, String> {
    let ops: Ops<'_> = &|i, model| short.op(i, model);
    live(world, present.clone(), ops, close)
}

/// Operations of the disk when the mount is there, and when the workload is over.
fn span((base, present): &(World, Present), short: &Short, close: bool) -> Result<(u64, u64), String> {
    let world = base.fork();
    drop(world.open().map_err(|e| e.to_string())?);
    let mounted = world.disk.operations();
    let world = base.fork();
    run(&world, present, short, close)?;
    Ok((mounted, world.disk.operations()))
}

/// Rounds over all of it, each with other dice.
fn rounds() -> u64 {
    (cuts() / 50_000).max(1)
}

#[test]
fn every_cut_of_every_single_operation_leaves_a_state_that_was() {
    let (counts, base) = (Counts::default(), base());
    let all = acts().len() as u64;
    on_all_cores(all * 2 * rounds(), |n| {
        let (act, synced, round) = (n % all, n / all % 2 == 1, n / all / 2);
        let short = Short { acts: [Some(act as usize), None], syncs: [synced, false] };
        let (_, end) = span(base, &short, true)?;
        for at in 0..=end {
            for i in 0..3 {
                let mut dice = Dice::new(round << 48 | n << 24 | at << 4 | i);
                let world = base.0.fork();
                world.disk.cut_at(at);
                let past = run(&world, &base.1, &short, true)?;
                crashed(world, &past, &mut dice, &counts).map_err(|e| {
                    format!("cut at {at} of {end}, dice {i}: {e}{}", short.shown(&base.1.model))
                })?;
            }
        }
        Ok(())
    });
    let [_, again, lost, kept] = told("single operations", &counts, all * 2 * 40);
    assert!(again > 1_000 && lost > 100 && kept > 100);
}

#[test]
fn every_cut_of_every_two_operations_leaves_a_state_that_was() {
    let (counts, base) = (Counts::default(), base());
    let all = acts().len() as u64;
    on_all_cores(all * all * rounds(), |n| {
        let (first, second, round) = (n % all, n / all % all, n / all / all);
        let acts = [Some(first as usize), Some(second as usize)];
        for syncs in [[false, true], [true, false]] {
            let short = Short { acts, syncs };
            let (mounted, end) = span(base, &short, false)?;
            // What cuts in the mount leave, single operations show.
            for at in mounted..=end {
                let mut dice = Dice::new(round << 48 | n << 24 | at << 4 | u64::from(syncs[0]));
                let world = base.0.fork();
                world.disk.cut_at(at);
                let past = run(&world, &base.1, &short, false)?;
                crashed(world, &past, &mut dice, &counts)
                    .map_err(|e| format!("cut at {at} of {end}: {e}{}", short.shown(&base.1.model)))?;
            }
        }
        Ok(())
    });
    let [_, again, lost, kept] = told("two operations", &counts, all * all * 4);
    assert!(again > 1_000 && lost > 1_000 && kept > 1_000);
}

#[test]
fn every_cut_of_every_recovery_leaves_a_state_that_was() {
    let (counts, base) = (Counts::default(), base());
    let workloads = [(0, 20), (27, 13), (30, 46), (11, 58), (4, 59)];
    on_all_cores(workloads.len() as u64 * rounds(), |n| {
        let (first, second) = workloads[n as usize % workloads.len()];
        let short = Short { acts: [Some(first), Some(second.min(acts().len() - 1))], syncs: [false, true] };
        let (mounted, end) = span(base, &short, true)?;
        for at in mounted..=end {
            let world = base.0.fork();
            world.disk.cut_at(at);
            let past = run(&world, &base.1, &short, true)?;
            let mut dice = Dice::new(n << 32 | at);
            let found = world.crash(random_crash(&mut dice), random_survival(&mut dice));
            for again in 0.. {
                let world = found.fork();
                world.disk.cut_at(again);
                let opened = world.open();
                let mut dice = Dice::new(n << 40 | at << 20 | again);
                let what = || format!("cut at {at} of {end} and {again} of recovery");
                match opened {
                    Ok(volume) => drop(volume),
                    Err(_) if world.disk.is_cut() => {}
                    Err(error) => return Err(format!("{}: {error}", what())),
                }
                let over = !world.disk.is_cut();
                let after = world.crash(random_crash(&mut dice), random_survival(&mut dice));
                counts.again.fetch_add(1, Ordering::Relaxed);
                counts.cuts.fetch_add(1, Ordering::Relaxed);
                check(after, &past, false, &mut dice, &counts)
                    .map_err(|e| format!("{}: {e}{}", what(), short.shown(&base.1.model)))?;
                if over {
                    break;
                }
            }
        }
        Ok(())
    });
    let (cuts, lost) = (counts.cuts.into_inner(), counts.lost_some.into_inner());
    println!("recoveries: {cuts} cuts; {lost} lost something unsynced");
    assert!(cuts > 1_000 && lost > 0, "{cuts} cuts, {lost} lost something");
}

#[test]
fn redb_torn_behind_and_ahead_is_a_cache_that_is_made_anew() {
    let base = prepared(World::make(&small()).with_redb());
    let (counts, wanted) = (Counts::default(), cuts() / 25);
    let all = acts().len() as u64;
    on_all_cores(wanted / 10, |n| {
        let mut dice = Dice::new(n ^ 0x4edb);
        let acts = [Some(dice.below(all) as usize), Some(all as usize - 1 - dice.below(2) as usize)];
        let short = Short { acts, syncs: [dice.one_in(2), false] };
        let (mounted, end) = span(&base, &short, true)?;
        for _ in 0..10 {
            let at = mounted + dice.below(end - mounted + 1);
            let world = base.0.fork();
            let killed = dice.one_in(4);
            if killed {
                world.disk.kill_at(at)
            } else {
                world.disk.cut_at(at)
            };
            let past = run(&world, &base.1, &short, true)?;
            let shown =
                |e| format!("cut at {at} of {end}, killed: {killed}: {e}{}", short.shown(&base.1.model));
            if killed {
                counts.cuts.fetch_add(1, Ordering::Relaxed);
                check(world.healed(), &past, true, &mut dice, &counts).map_err(shown)?;
            } else {
                crashed(world, &past, &mut dice, &counts).map_err(shown)?;
            }
        }
        Ok(())
    });
    let [_, again, _, kept] = told("redb", &counts, wanted / 2);
    assert!(again > 0 && kept > 0);
}
