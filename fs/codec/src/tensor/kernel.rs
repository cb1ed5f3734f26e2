//! Which vectors the processor has.

/// A way to compute, which this processor has. All give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Kind);

// Architecture Invariant: a kind of the processor's own is only made in `available`, after asking for it: whoever calls what
// needs its features relies on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// With the instructions for bytes and words (BW) and for shorter vectors (VL).
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Kernel {
    /// The one that every processor has.
    pub const PORTABLE: Kernel = Kernel(Kind::Portable);

    /// All that this processor has, the fastest first, the portable one last.
    pub fn available() -> impl Iterator<Item = Kernel> {
        #[cfg(target_arch = "x86_64")]
        let own = {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt");
            let more = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
            let avx512 = avx2 && more && is_x86_feature_detected!("avx512vl");
            [(Kind::Avx512, avx512), (Kind::Avx2, avx2)]
        };
        #[cfg(not(target_arch = "x86_64"))]
        let own: [(Kind, bool); 0] = [];
        let own = own.into_iter().filter(|(_, detected)| *detected).map(|(kind, _)| kind);
        own.chain([Kind::Portable]).map(Kernel)
    }

    /// The fastest.
    pub fn best() -> Kernel {
        Kernel::available().next().unwrap_or(Kernel::PORTABLE)
    }

    /// What it is called in figures.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
        }
    }

    pub(super) fn kind(self) -> Kind {
        self.0
    }

    /// Runs `work`, compiled for the vectors that this kernel has: its loops are for the compiler to make use of them. It has to be
    /// inlined.
    #[inline(always)]
    pub(super) fn with_its_vectors<T>(self, work: impl FnOnce() -> T) -> T {
        match self.0 {
            Kind::Portable => work(),
            #[cfg(target_arch = "x86_64")]
            kind => x86::run(kind, work),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #![expect(
        unsafe_code,
        reason = "what needs features of the processor is called once they were asked for"
    )]

    use super::Kind;

    #[inline(always)]
    pub(super) fn run<T>(kind: Kind, work: impl FnOnce() -> T) -> T {
        // Safety: `Kernel::available`, which alone makes these kinds, asked the processor for the features.
        match kind {
            Kind::Portable => work(),
            Kind::Avx2 => unsafe { avx2(work) },
            Kind::Avx512 => unsafe { avx512(work) },
        }
    }

    #[target_feature(enable = "avx2,popcnt")]
    fn avx2<T>(work: impl FnOnce() -> T) -> T {
        work()
    }

    #[target_feature(enable = "avx2,popcnt,avx512f,avx512bw,avx512vl")]
    fn avx512<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
}
