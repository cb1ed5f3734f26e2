//! Properties that hold whichever thread goes on when: see docs/TESTING.md, "Schedules". Not run with the other tests, whose
//! threads no scheduler knows of.

mod journal;
mod machine;
mod small;
mod volume;
