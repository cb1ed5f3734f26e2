//! What an element is, less what another one is: fine-tuned weights lie near those they began as.
//!
//! Elements are numbers here in the order in which floats are: of what has its sign bit set all bits are turned over, of others the
//! sign bit, so that neighbours differ by one. Integers are what they are. The difference d (modulo 2^bits) of two is
//! stored as 2 d where that is not negative, else as -2 d - 1: small ones have zeros above.

use cairn_format::Element;

use super::kernel::Kernel;

macro_rules! differences_of {
    ($int:ty, $signed:ty, $ordered:ident, $subtract:ident, $add:ident) => {
        mod $ordered {
            const SIGN: $int = 1 << (<$int>::BITS - 1);

            #[inline(always)]
            fn spread(x: $int) -> $int {
                (x as $signed >> (<$int>::BITS - 1)) as $int
            }

            #[inline(always)]
            pub(super) fn from_bits(x: $int, float: bool) -> $int {
                if float { x ^ (spread(x) | SIGN) } else { x }
            }

            #[inline(always)]
            pub(super) fn to_bits(x: $int, float: bool) -> $int {
                if float { x ^ (!spread(x) | SIGN) } else { x }
            }

            #[inline(always)]
            pub(super) fn fold(d: $int) -> $int {
                d << 1 ^ spread(d)
            }

            #[inline(always)]
            pub(super) fn unfold(d: $int) -> $int {
                d >> 1 ^ (d & 1).wrapping_neg()
            }
        }

        #[inline(always)]
        fn $subtract(plain: &[u8], base: &[u8], to: &mut [u8], float: bool) {
            let bytes = plain.as_chunks().0.iter().zip(base.as_chunks().0).zip(to.as_chunks_mut().0);
            for ((plain, base), to) in bytes {
                let ordered = |bytes: &[u8; size_of::<$int>()]| {
                    $ordered::from_bits(<$int>::from_le_bytes(*bytes), float)
                };
                *to = $ordered::fold(ordered(plain).wrapping_sub(ordered(base))).to_le_bytes();
            }
        }

        #[inline(always)]
        fn $add(plain: &mut [u8], base: &[u8], float: bool) {
            for (plain, base) in plain.as_chunks_mut().0.iter_mut().zip(base.as_chunks().0) {
                let base = $ordered::from_bits(<$int>::from_le_bytes(*base), float);
                let sum = base.wrapping_add($ordered::unfold(<$int>::from_le_bytes(*plain)));
                *plain = $ordered::to_bits(sum, float).to_le_bytes();
            }
        }
    };
}

differences_of!(u8, i8, ordered_1, subtract_1, add_1);
differences_of!(u16, i16, ordered_2, subtract_2, add_2);
differences_of!(u32, i32, ordered_4, subtract_4, add_4);
differences_of!(u64, i64, ordered_8, subtract_8, add_8);

/// Sets `to` to the differences of `plain` from `base`; all three are whole elements, as many.
pub(super) fn subtract(kernel: Kernel, element: Element, plain: &[u8], base: &[u8], to: &mut [u8]) {
    debug_assert!(plain.len() == base.len() && plain.len() == to.len());
    kernel.with_its_vectors(
        #[inline(always)]
        || match element {
            Element::Byte => subtract_1(plain, base, to, false),
            Element::Short => subtract_2(plain, base, to, false),
            Element::Half | Element::Bfloat => subtract_2(plain, base, to, true),
            Element::Word => subtract_4(plain, base, to, false),
            Element::Single => subtract_4(plain, base, to, true),
            Element::Long => subtract_8(plain, base, to, false),
            Element::Double => subtract_8(plain, base, to, true),
            _ => subtract_1(plain, base, to, false),
        },
    );
}

/// The reverse: `plain` are differences before, and elements afterwards.
pub(super) fn add(kernel: Kernel, element: Element, plain: &mut [u8], base: &[u8]) {
    debug_assert!(plain.len() == base.len());
    kernel.with_its_vectors(
        #[inline(always)]
        || match element {
            Element::Byte => add_1(plain, base, false),
            Element::Short => add_2(plain, base, false),
            Element::Half | Element::Bfloat => add_2(plain, base, true),
            Element::Word => add_4(plain, base, false),
            Element::Single => add_4(plain, base, true),
            Element::Long => add_8(plain, base, false),
            Element::Double => add_8(plain, base, true),
            _ => add_1(plain, base, false),
        },
    );
}

#[cfg(test)]
mod tests {
    use super::super::planes::tests::elements;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_subtracted_is_added_again(pairs: Vec<(u8, u8)>, element in elements()) {
            let len = pairs.len() / element.width() * element.width();
            let (plain, base): (Vec<u8>, Vec<u8>) = pairs[..len].iter().copied().unzip();
            let mut expected = vec![0; len];
            subtract(Kernel::PORTABLE, element, &plain, &base, &mut expected);
            for kernel in Kernel::available() {
                let mut differences = vec![0xa5; len];
                subtract(kernel, element, &plain, &base, &mut differences);
                prop_assert_eq!(&differences, &expected);
                add(kernel, element, &mut differences, &base);
                prop_assert_eq!(&differences, &plain);
            }
        }
    }

    #[test]
    fn neighbours_differ_by_one_across_zero_too() {
        let numbers =
            [-f32::from_bits(2), -f32::from_bits(1), -0.0, 0.0, f32::from_bits(1), 1.0, 1.0f32.next_up()];
        let bytes = |x: f32| x.to_le_bytes();
        for pair in numbers.windows(2).filter(|pair| pair[1] != 1.0) {
            let mut up = [0; 4];
            subtract(Kernel::best(), Element::Single, &bytes(pair[1]), &bytes(pair[0]), &mut up);
            let mut down = [0; 4];
            subtract(Kernel::best(), Element::Single, &bytes(pair[0]), &bytes(pair[1]), &mut down);
            assert_eq!([u32::from_le_bytes(up), u32::from_le_bytes(down)], [2, 1], "{pair:?}");
        }
    }
}
