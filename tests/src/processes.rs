//! What `/proc` tells of processes.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use nix::unistd::Pid;

/// Who started it, or took it over when that one ended.
pub fn parent_of(pid: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
    Some(Pid::from_raw(parent))
}

/// The processes that another started.
pub fn children_of(pid: Pid) -> Vec<Pid> {
    let all = fs::read_dir("/proc").expect("proc is mounted").flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw));
    numbers.filter(|child| parent_of(*child) == Some(pid)).collect()
}

/// The state of a process, as a letter; `None` if there is none of that number.
pub fn state_of(pid: Pid) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

/// Whether it is gone, or waits for somebody to ask how it ended.
pub fn has_ended(pid: Pid) -> bool {
    state_of(pid).is_none_or(|state| matches!(state, 'Z' | 'X'))
}

/// What a process and all that it started wait for, a paragraph each: for whoever has to find out why they do not end. Where
/// several wait for each other, all of them wait for pipes or processes; what waits for a filesystem is in its functions.
/// The kernel's functions are told to root only.
pub fn waits_of(pid: Pid) -> String {
    let mut text = String::new();
    tell_waits(pid, &mut text);
    text
}

fn tell_waits(pid: Pid, text: &mut String) {
    let about = PathBuf::from(format!("/proc/{pid}"));
    let read = |name: &str| fs::read(about.join(name)).unwrap_or_default();
    let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
    let state = state_of(pid).unwrap_or('-');
    let call = String::from_utf8_lossy(&read("syscall")).trim().to_owned();
    let stack = String::from_utf8_lossy(&read("stack")).into_owned();
    let functions: Vec<_> = stack.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    let descriptors: Vec<_> = fs::read_dir(about.join("fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let to = fs::read_link(entry.path()).ok()?;
            Some(format!("{} is {}", entry.file_name().display(), to.display()))
        })
        .collect();
    let _ = writeln!(
        text,
        "process {pid}, {line:?}, state {state}\n  call {call}\n  in {}\n  descriptors: {}",
        functions.join(", "),
        descriptors.join(", ")
    );
    for child in children_of(pid) {
        tell_waits(child, text);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_waits_for_a_pipe_is_told_with_it_and_so_is_who_waits_for_him() {
        // cat waits for what nobody writes, the shell for cat.
        let mut shell =
            Command::new("sh").args(["-c", "cat; true"]).stdin(Stdio::piped()).spawn().expect("a shell");
        let pid = Pid::from_raw(i32::try_from(shell.id()).expect("a process's number"));
        let told = loop {
            let told = waits_of(pid);
            if told.contains("\"cat ") && told.matches("state S").count() == 2 {
                break told;
            }
            assert!(shell.try_wait().expect("a child").is_none(), "{told}");
            thread::sleep(Duration::from_millis(5));
        };
        drop(shell.stdin.take());
        shell.wait().expect("a child");
        assert!(told.contains("0 is pipe:["), "{told}");
        assert!(told.contains("pipe_read") && told.contains("wait"), "{told}");
        assert_eq!(state_of(pid), None, "it is gone");
    }
}
