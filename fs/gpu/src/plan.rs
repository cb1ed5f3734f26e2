//! What kernels are told of what they work on, in words.

use cairn_format::Element;

/// Words of a block, as kernels read it.
pub(crate) const BLOCK_WORDS: usize = 5;
/// Workgroups that share a block where it is taken apart or put together.
pub(crate) const SHARE: usize = 4;
/// The most planes of an element.
pub(crate) const PLANES: usize = 8;
/// Blocks of a batch: no dimension of a dispatch may have more than 65,535 workgroups.
pub(crate) const BLOCKS: usize = 65_535 / PLANES;

/// What there is to know of each kind of element, in the order of `Element::all`.
pub(crate) fn kinds() -> Vec<u32> {
    let mut words = Vec::new();
    for element in Element::all() {
        let fields = element.fields();
        let turn = matches!(element, Element::Bfloat | Element::Single | Element::Double);
        words.extend([element.width() as u32, turn.into(), fields.len() as u32]);
        let at = |plane: usize| fields[..plane.min(fields.len())].iter().sum::<usize>() as u32;
        words.extend((0..PLANES).map(|plane| fields.get(plane).map_or(0, |field| *field as u32)));
        words.extend((0..PLANES).map(at));
    }
    words
}

/// Which of these an element is.
pub(crate) fn kind(element: Element) -> u32 {
    Element::all().position(|other| other == element).unwrap_or_default() as u32
}

/// Where things lie that are laid one behind the other, each from a word on.
#[derive(Default)]
pub(crate) struct Laid {
    words: usize,
}

impl Laid {
    /// The word at which the next begins, of so many bytes.
    pub(crate) fn take(&mut self, bytes: usize) -> u32 {
        let at = self.words;
        self.words += bytes.div_ceil(4);
        at as u32
    }

    /// Bytes of all.
    pub(crate) fn bytes(&self) -> usize {
        4 * self.words
    }
}

/// Puts items in batches: each of as many as go into it, and one at least.
pub(crate) fn batches<T>(items: &[T], fits: impl Fn(&[T]) -> bool) -> Vec<&[T]> {
    let mut batches = Vec::new();
    let mut start = 0;
    for end in 1..=items.len() {
        if end - start > 1 && !fits(&items[start..end]) {
            batches.push(&items[start..end - 1]);
            start = end - 1;
        }
    }
    if start < items.len() {
        batches.push(&items[start..]);
    }
    batches
}

/// Does the work on all items, on all cores, in order.
pub(crate) fn on_all_cores<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len()).max(1);
    if threads == 1 {
        return items.iter().map(work).collect();
    }
    let work = &work;
    std::thread::scope(|scope| {
        let share = |items: &'_ [T]| items.iter().map(work).collect::<Vec<R>>();
        let shares = items.chunks(items.len().div_ceil(threads));
        let workers: Vec<_> = shares.map(|items| scope.spawn(move || share(items))).collect();
        let done = |worker: std::thread::ScopedJoinHandle<'_, Vec<R>>| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        workers.into_iter().flat_map(done).collect()
    })
}
