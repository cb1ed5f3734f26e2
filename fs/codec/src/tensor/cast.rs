//! Floats of 16 and of 32 bits as those of another kind: a model that was cast is near to what it was cast from.
//!
//! All of it is integer arithmetic and IEEE 754 addition and multiplication, so that every processor gives the same bits: to the nearest,
//! of two as near to the even one, as everybody casts. A NaN stays one, with the upper bits of what it says.

use std::borrow::Cow;

use cairn_format::Element;

use super::kernel::Kernel;

/// A run that another may be near to: of as many elements.
#[derive(Clone, Copy, Debug)]
pub struct Base<'b> {
    /// What its elements are.
    pub element: Element,
    /// Its bytes.
    pub bytes: &'b [u8],
}

impl<'b> Base<'b> {
    /// As elements of another kind, or of the same; none where there are not so many that they take `len` bytes, or where they cannot be cast.
    pub(super) fn cast(self, kernel: Kernel, element: Element, len: usize) -> Option<Cow<'b, [u8]>> {
        if self.bytes.len() != base_len(len, element, self.element)? {
            return None;
        }
        if element == self.element {
            return Some(Cow::Borrowed(self.bytes));
        }
        let mut cast = vec![0; len];
        kernel.with_its_vectors(
            #[inline(always)]
            || match (self.element, element) {
                (Element::Single, Element::Bfloat) => narrow(self.bytes, &mut cast, bfloat_of_single),
                (Element::Single, Element::Half) => narrow(self.bytes, &mut cast, half_of_single),
                (Element::Bfloat, Element::Single) => widen(self.bytes, &mut cast, single_of_bfloat),
                (Element::Half, Element::Single) => widen(self.bytes, &mut cast, single_of_half),
                (Element::Bfloat, _) => turn(self.bytes, &mut cast, |x| half_of_single(single_of_bfloat(x))),
                _ => turn(self.bytes, &mut cast, |x| bfloat_of_single(single_of_half(x))),
            },
        );
        Some(Cow::Owned(cast))
    }
}

/// Bytes of a base of elements of the kind `base` for so many of those of `element`; none where those cannot be cast to these.
pub fn base_len(len: usize, element: Element, base: Element) -> Option<usize> {
    if element == base {
        return Some(len);
    }
    let whole = len.is_multiple_of(element.width()) && element.casts_from(base);
    whole.then(|| len / element.width() * base.width())
}

#[inline(always)]
fn narrow(from: &[u8], to: &mut [u8], cast: impl Fn(u32) -> u16) {
    for (from, to) in from.as_chunks().0.iter().zip(to.as_chunks_mut().0) {
        *to = cast(u32::from_le_bytes(*from)).to_le_bytes();
    }
}

#[inline(always)]
fn widen(from: &[u8], to: &mut [u8], cast: impl Fn(u16) -> u32) {
    for (from, to) in from.as_chunks().0.iter().zip(to.as_chunks_mut().0) {
        *to = cast(u16::from_le_bytes(*from)).to_le_bytes();
    }
}

#[inline(always)]
fn turn(from: &[u8], to: &mut [u8], cast: impl Fn(u16) -> u16) {
    for (from, to) in from.as_chunks().0.iter().zip(to.as_chunks_mut().0) {
        *to = cast(u16::from_le_bytes(*from)).to_le_bytes();
    }
}

#[inline(always)]
fn bfloat_of_single(x: u32) -> u16 {
    let rounded = x.wrapping_add(0x7fff + (x >> 16 & 1)) >> 16;
    let is_nan = x & 0x7fff_ffff > 0x7f80_0000;
    (if is_nan { x >> 16 | 0x40 } else { rounded }) as u16
}

#[inline(always)]
fn single_of_bfloat(x: u16) -> u32 {
    u32::from(x) << 16
}

#[inline(always)]
fn half_of_single(x: u32) -> u16 {
    let magnitude = x & 0x7fff_ffff;
    // The exponent is 112 less; what carries into it is as it should be, up to infinity.
    let normal = {
        let biased = magnitude.wrapping_sub(112 << 23);
        biased.wrapping_add(0xfff + (biased >> 13 & 1)) >> 13
    };
    // Below 2^-14: beside a half the last bit is 2^-24, which is what these have.
    let small = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let finite = if magnitude < 113 << 23 { small } else { normal };
    let large = if magnitude > 0x7f80_0000 { 0x7e00 | magnitude >> 13 & 0x3ff } else { 0x7c00 };
    let cast = if magnitude >= 143 << 23 { large } else { finite };
    (x >> 16 & 0x8000 | cast) as u16
}

#[inline(always)]
fn single_of_half(x: u16) -> u32 {
    let x = u32::from(x);
    let magnitude = x & 0x7fff;
    let normal = (magnitude << 13) + (112 << 23);
    let large = magnitude << 13 | 0x7f80_0000;
    // Multiples of 2^-24.
    let small = (magnitude as f32 * f32::from_bits((127 - 24) << 23)).to_bits();
    let finite = if magnitude < 0x400 { small } else { normal };
    (x & 0x8000) << 16 | if magnitude >= 0x7c00 { large } else { finite }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The number that is nearest to x of all 16-bit ones, which `value` tells of; of two as near the one with an even last bit.
    fn nearest(x: f32, value: impl Fn(u16) -> f64, infinity: u16) -> u16 {
        let sign = (x.to_bits() >> 16) as u16 & 0x8000;
        let target = f64::from(x.abs());
        // They are in order. What would come next after the largest is where infinity begins.
        let above = (0..infinity).collect::<Vec<_>>().partition_point(|n| value(*n) < target) as u16;
        let step = value(infinity - 1) - value(infinity - 2);
        let at = |n: u16| if n == infinity { value(infinity - 1) + step } else { value(n) };
        let near = match above {
            0 => 0,
            _ if target.is_infinite() => infinity,
            above => {
                let (low, high) = (target - at(above - 1), at(above) - target);
                match low.total_cmp(&high) {
                    std::cmp::Ordering::Less => above - 1,
                    std::cmp::Ordering::Greater => above,
                    std::cmp::Ordering::Equal => above - (above & 1),
                }
            }
        };
        sign | near
    }

    fn half(n: u16) -> f64 {
        let (exponent, fraction) = (i32::from(n >> 10), f64::from(n & 0x3ff));
        if exponent == 0 { fraction * 2f64.powi(-24) } else { (1024.0 + fraction) * 2f64.powi(exponent - 25) }
    }

    fn bfloat(n: u16) -> f64 {
        f64::from(f32::from_bits(u32::from(n) << 16))
    }

    fn singles() -> impl Strategy<Value = u32> {
        let near_half = (any::<u16>(), -3i64..4).prop_map(|(half, by)| {
            ((f64::from(half & 0x7bff) * 2f64.powi(-20)) as f32).to_bits().wrapping_add(by as u32)
        });
        let ties = (any::<u16>(), any::<bool>(), -1i32..2).prop_map(|(upper, half, by)| {
            let tie = if half { 0x1000 } else { 0x8000 };
            (u32::from(upper) << 16 | tie).wrapping_add_signed(by)
        });
        let range = (100u32..145, any::<u32>()).prop_map(|(e, x)| e << 23 | x & 0x807f_ffff);
        prop_oneof![any::<u32>(), near_half, ties, range]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn singles_are_cast_to_the_nearest(x in singles()) {
            if f32::from_bits(x).is_nan() {
                prop_assert!(half_of_single(x) & 0x7fff > 0x7c00 && bfloat_of_single(x) & 0x7fff > 0x7f80);
            } else {
                prop_assert_eq!(half_of_single(x), nearest(f32::from_bits(x), half, 0x7c00), "half of {:#x}", x);
                prop_assert_eq!(bfloat_of_single(x), nearest(f32::from_bits(x), bfloat, 0x7f80), "bfloat of {:#x}", x);
            }
        }

        #[test]
        fn every_kernel_casts_to_the_same(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            kinds in (0usize..3, 0usize..3),
        ) {
            const KINDS: [Element; 3] = [Element::Half, Element::Bfloat, Element::Single];
            let (of, to) = (KINDS[kinds.0], KINDS[kinds.1]);
            let bytes = &bytes[..bytes.len() / of.width() * of.width()];
            let base = Base { element: of, bytes };
            let len = bytes.len() / of.width() * to.width();
            let expected = base.cast(Kernel::PORTABLE, to, len).expect("floats are cast").into_owned();
            prop_assert_eq!(expected.len(), len);
            for kernel in Kernel::available() {
                prop_assert_eq!(&base.cast(kernel, to, len).expect("floats are cast")[..], &expected[..], "{}", kernel.name());
            }
            prop_assert!(base.cast(Kernel::PORTABLE, to, len + 2).is_none());
        }
    }

    #[test]
    fn all_floats_of_16_bits_are_had_back_from_32() {
        for x in 0..=u16::MAX {
            if x & 0x7fff <= 0x7c00 {
                assert_eq!(half_of_single(single_of_half(x)), x);
                assert_eq!(
                    f64::from(f32::from_bits(single_of_half(x & 0x7fff))) == half(x & 0x7fff),
                    x & 0x7fff < 0x7c00
                );
            }
            if x & 0x7fff <= 0x7f80 {
                assert_eq!(bfloat_of_single(single_of_bfloat(x)), x);
            }
        }
    }
}
