//! Putting a page where it was asked for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where a page is to be: a regular file, or none yet.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
}

impl Place {
    /// Looks whether a page can be put at `path`, so that a run of hours does not find out at its end.
    pub fn new(path: &Path) -> Result<Place, String> {
        let place = Place { path: path.to_path_buf() };
        place.look()?;
        place.beside().and_then(|(_, beside)| fs::remove_file(beside)).map_err(|e| place.failed(&e))?;
        Ok(place)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the page beside its place, and gives it the name: there is a whole page or the one before.
    pub fn put(&self, html: &str) -> Result<(), String> {
        self.look()?;
        let (file, beside) = self.beside().map_err(|e| self.failed(&e))?;
        let put = write(file, html).and_then(|()| fs::rename(&beside, &self.path));
        put.map_err(|e| {
            // What is left of it is of no use; that it cannot be removed is no worse.
            let _ = fs::remove_file(&beside);
            self.failed(&e)
        })
    }

    fn look(&self) -> Result<(), String> {
        let is = match fs::symlink_metadata(&self.path).map(|found| found.file_type()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(self.failed(&e)),
            Ok(kind) if kind.is_file() => return Ok(()),
            Ok(kind) if kind.is_dir() => "a directory",
            Ok(kind) if kind.is_symlink() => "a symbolic link",
            Ok(_) => "no regular file",
        };
        Err(format!(
            "{}: it is {is}, and a report replaces nothing but a regular file: name another with --report",
            self.path.display()
        ))
    }

    /// A new file in the same directory.
    fn beside(&self) -> io::Result<(File, PathBuf)> {
        if self.path.file_name().is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not end with a file's name"));
        }
        let mut number = 0;
        loop {
            let name = format!(".cairn-report-{}-{number}.new", std::process::id());
            let beside = self.path.with_file_name(name);
            match OpenOptions::new().write(true).create_new(true).open(&beside) {
                Ok(file) => return Ok((file, beside)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && number < 100 => number += 1,
                Err(e) => return Err(e),
            }
        }
    }

    fn failed(&self, error: &io::Error) -> String {
        format!(
            "{}: the report cannot be written there: {error}: name a file for --report in a directory that you can write to",
            self.path.display()
        )
    }
}

fn write(mut file: File, html: &str) -> io::Result<()> {
    file.write_all(html.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_page_takes_the_place_of_the_one_before_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page.html");
        Place::new(&path).unwrap().put("one").unwrap();
        let place = Place::new(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        place.put("two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["page.html"]);
    }

    #[test]
    fn nothing_but_a_regular_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let [below, link, missing] = ["below", "link", "none/page.html"].map(|name| dir.path().join(name));
        fs::create_dir(&below).unwrap();
        symlink("elsewhere", &link).unwrap();
        for (path, why) in [
            (below.as_path(), "a directory"),
            (&link, "a symbolic link"),
            (Path::new("/dev/null"), "no regular file"),
            (&missing, "cannot be written there"),
            (Path::new("/"), "a directory"),
            (Path::new(""), "cannot be written"),
        ] {
            let error = Place::new(path).expect_err("refused");
            assert!(error.contains(why) && error.contains("--report"), "{error}");
            assert!(error.starts_with(path.to_str().unwrap()), "{error}");
        }
        // One that became something else meanwhile is not replaced, either.
        let path = dir.path().join("page.html");
        let place = Place::new(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(place.put("page").is_err());
        assert_eq!(names(dir.path()), ["below", "link", "page.html"]);
    }
}
