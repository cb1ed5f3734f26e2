//! GF(2^8): bytes as polynomials over the two-element field, modulo x^8 + x^4 + x^3 + x^2 + 1.

/// The polynomial without its x^8.
pub(super) const POLYNOMIAL: u8 = 0x1d;

/// The product of two elements; slow, for tables.
pub(super) const fn multiply(a: u8, b: u8) -> u8 {
    let (mut product, mut power, mut rest) = (0, a, b);
    while rest != 0 {
        if rest & 1 != 0 {
            product ^= power;
        }
        power = double(power);
        rest >>= 1;
    }
    product
}

/// The product with x. No branch, and only what a compiler finds in any vector instructions.
#[inline(always)]
pub(super) const fn double(a: u8) -> u8 {
    (a << 1) ^ (((a as i8) >> 7) as u8 & POLYNOMIAL)
}

/// What powers of x the elements but zero are, and which they are of, twice round so that sums of two need no
/// remainder.
struct Logarithms {
    log: [u8; 256],
    power: [u8; 510],
}

static LOGARITHMS: Logarithms = {
    let (mut log, mut power) = ([0; 256], [0; 510]);
    let (mut i, mut element) = (0, 1);
    while i < 255 {
        log[element as usize] = i as u8;
        power[i] = element;
        power[i + 255] = element;
        element = double(element);
        i += 1;
    }
    Logarithms { log, power }
};

/// The exponent of x that gives `a`, which is not zero.
fn log(a: u8) -> usize {
    LOGARITHMS.log[usize::from(a)].into()
}

/// What a polynomial's values at `sources` have to be multiplied with so that their sum is its value at `target`, where
/// its degree is less than the number of sources (Lagrange). The sources differ from each other and from the target.
pub(super) fn interpolate(sources: &[u8], target: u8) -> Vec<u8> {
    let above: usize = sources.iter().map(|&other| log(target ^ other)).sum();
    let factor = |&source: &u8| {
        let others = sources.iter().filter(|&&other| other != source);
        let below: usize = others.map(|&other| log(source ^ other)).sum();
        // Each of at most 255 numbers below is less than 255: no sum overflows.
        let exponent = (above - log(target ^ source)) % 255 + (255 - below % 255);
        LOGARITHMS.power[exponent]
    };
    sources.iter().map(factor).collect()
}
