//! Tells systemd how a mount in the foreground goes (`Type=notify`): sd_notify(3)'s protocol, which is a datagram to the
//! socket that `NOTIFY_SOCKET` names.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The mount answers.
pub(crate) fn ready(status: &str) {
    tell(&format!("READY=1\nSTATUS={}", one_line(status)));
}

/// Something goes on.
pub(crate) fn status(status: &str) {
    tell(&format!("STATUS={}", one_line(status)));
}

/// The daemon is about to end.
pub(crate) fn stopping(status: &str) {
    tell(&format!("STOPPING=1\nSTATUS={}", one_line(status)));
}

/// Nothing waits for it, and where nobody listens nothing is done.
fn tell(state: &str) {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET").filter(|a| !a.is_empty()) else { return };
    if let Err(e) = send(&address, state) {
        tracing::warn!("NOTIFY_SOCKET={}: {e}", address.display());
    }
}

fn send(address: &OsStr, state: &str) -> io::Result<()> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// A line's end would begin another variable.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_address_are_reached() {
        let name = format!("cairn-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let by_path = UnixDatagram::bind(&path).expect("a new name");
        let by_name = SocketAddr::from_abstract_name(&name).and_then(|a| UnixDatagram::bind_addr(&a));
        let mut buffer = [0; 64];
        send(path.as_os_str(), "READY=1").expect("sent");
        assert_eq!(by_path.recv(&mut buffer).map(|n| buffer[..n].to_vec()).expect("received"), b"READY=1");
        send(format!("@{name}").as_ref(), "STOPPING=1").expect("sent");
        let length = by_name.expect("a new name").recv(&mut buffer).expect("received");
        assert_eq!(&buffer[..length], b"STOPPING=1");
        std::fs::remove_file(path).expect("removed");
    }

    #[test]
    fn a_status_is_one_line() {
        assert_eq!(one_line("/a\nREADY=1"), "/a READY=1");
    }
}
