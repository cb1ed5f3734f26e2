//! Properties that hold whichever thread goes on when: see docs/TESTING.md, "Schedules".

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cairn_volume::sync::mpsc::sync_channel;
use cairn_volume::sync::{explore, pause, thread};

use super::{Lane, Width};

const WIDTH: Width = Width { readers: 1, workers: 2, queue: 1 };

#[test]
fn every_job_runs_once_and_none_is_left_when_the_lane_ends() {
    explore(300, || {
        let lane = Arc::new(Lane::new("test", WIDTH).expect("threads"));
        let done: Arc<Mutex<Vec<u32>>> = Arc::default();
        // Readers that are inside a job, on their own leave.
        let inside = Arc::new(AtomicUsize::new(0));
        let readers: Vec<_> = (0..3)
            .map(|who| {
                let (lane, done, inside) = (lane.clone(), done.clone(), inside.clone());
                thread::spawn(move || {
                    for n in 0..2 {
                        if let Some(_leave) = lane.enter() {
                            assert!(inside.fetch_add(1, Ordering::Relaxed) < WIDTH.readers);
                            pause();
                            inside.fetch_sub(1, Ordering::Relaxed);
                        }
                        let done = done.clone();
                        lane.run(move || {
                            pause();
                            done.lock().expect("whole").push(who * 10 + n);
                        });
                    }
                })
            })
            .collect();
        readers.into_iter().for_each(|t| t.join().expect("no panic"));
        drop(Arc::into_inner(lane).expect("nobody else has it"));
        let mut done = done.lock().expect("whole").clone();
        done.sort_unstable();
        assert_eq!(done, [0, 1, 10, 11, 20, 21]);
    });
}

#[test]
fn jobs_that_wait_for_a_later_one_end_while_there_are_enough_places() {
    explore(200, || {
        let lane = Lane::new("test", WIDTH).expect("threads");
        let _leave = lane.enter();
        let (tell, told) = sync_channel(0);
        // As a read that waits for what another request brings: a worker takes each.
        lane.run(move || told.recv().expect("somebody tells"));
        lane.run(move || tell.send(()).expect("somebody waits"));
        drop(lane);
    });
}
