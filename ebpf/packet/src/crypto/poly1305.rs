//! Poly1305 (RFC 8439 section 2.5) in five limbs of 26 bits, so that products and their sums fit 64 bits.

/// The tag of 32 bytes.
#[inline(never)]
pub(super) const fn tag_of_32(tag: &mut [u32; 4], key: &[u32; 16], text: &[u32; 8]) {
    let mut poly = Poly1305::new(key);
    poly.block([text[0], text[1], text[2], text[3]]);
    poly.block([text[4], text[5], text[6], text[7]]);
    *tag = poly.tag();
}

/// The tag of 46 bytes; the last two of the 48 are zero.
#[inline(never)]
pub(super) const fn tag_of_46(tag: &mut [u32; 4], key: &[u32; 16], text: &[u32; 12]) {
    let mut poly = Poly1305::new(key);
    poly.block([text[0], text[1], text[2], text[3]]);
    poly.block([text[4], text[5], text[6], text[7]]);
    poly.last([text[8], text[9], text[10], text[11] | 1 << 16]);
    *tag = poly.tag();
}

/// A MAC under way.
struct Poly1305 {
    r: [u32; 5],
    sum: [u32; 5],
    pad: [u32; 4],
}

const LIMB: u32 = 0x3ff_ffff;

impl Poly1305 {
    /// Begins with a one-time key, the first half of a block of key stream: of its two halves one multiplies, the other is
    /// added at the end.
    #[inline(always)]
    const fn new(key: &[u32; 16]) -> Self {
        let [k0, k1, k2, k3, p0, p1, p2, p3, ..] = *key;
        let [r0, r1, r2, r3, r4] = limbs([k0, k1, k2, k3], 0);
        // The clamp of the RFC, limb by limb.
        let r = [r0, r1 & 0x3ff_ff03, r2 & 0x3ff_c0ff, r3 & 0x3f0_3fff, r4 & 0x00f_ffff];
        Self { r, sum: [0; 5], pad: [p0, p1, p2, p3] }
    }

    /// A block of 16 bytes.
    #[inline(always)]
    const fn block(&mut self, words: [u32; 4]) {
        self.add(words, 1 << 24);
    }

    /// A last block that is shorter, with a one behind its last byte and zeros behind that.
    #[inline(always)]
    const fn last(&mut self, words: [u32; 4]) {
        self.add(words, 0);
    }

    /// `sum = (sum + block) * r mod 2^130 - 5`, not fully reduced.
    #[inline(always)]
    const fn add(&mut self, words: [u32; 4], top: u32) {
        let block = limbs(words, top);
        let [r0, r1, r2, r3, r4] =
            [self.r[0] as u64, self.r[1] as u64, self.r[2] as u64, self.r[3] as u64, self.r[4] as u64];
        // 2^130 is 5: what a product has beyond the fifth limb comes in again at the bottom, five times.
        let [s1, s2, s3, s4] = [r1 * 5, r2 * 5, r3 * 5, r4 * 5];
        let [h0, h1, h2, h3, h4] = [
            (self.sum[0] + block[0]) as u64,
            (self.sum[1] + block[1]) as u64,
            (self.sum[2] + block[2]) as u64,
            (self.sum[3] + block[3]) as u64,
            (self.sum[4] + block[4]) as u64,
        ];
        let d0 = h0 * r0 + h1 * s4 + h2 * s3 + h3 * s2 + h4 * s1;
        let d1 = h0 * r1 + h1 * r0 + h2 * s4 + h3 * s3 + h4 * s2 + (d0 >> 26);
        let d2 = h0 * r2 + h1 * r1 + h2 * r0 + h3 * s4 + h4 * s3 + (d1 >> 26);
        let d3 = h0 * r3 + h1 * r2 + h2 * r1 + h3 * r0 + h4 * s4 + (d2 >> 26);
        let d4 = h0 * r4 + h1 * r3 + h2 * r2 + h3 * r1 + h4 * r0 + (d3 >> 26);
        let low = (d0 as u32 & LIMB) as u64 + (d4 >> 26) * 5;
        self.sum = [
            low as u32 & LIMB,
            (d1 as u32 & LIMB) + (low >> 26) as u32,
            d2 as u32 & LIMB,
            d3 as u32 & LIMB,
            d4 as u32 & LIMB,
        ];
    }

    /// The tag.
    #[inline(always)]
    const fn tag(self) -> [u32; 4] {
        let mut h = self.sum;
        // Twice around, for the first may leave a carry.
        let mut round = 0;
        while round < 2 {
            let mut at = 0;
            let mut carry = 0;
            while at < 5 {
                h[at] += carry;
                carry = h[at] >> 26;
                h[at] &= LIMB;
                at += 1;
            }
            h[0] += carry * 5;
            round += 1;
        }
        let h = select_reduced(h);
        let number =
            [h[0] | h[1] << 26, h[1] >> 6 | h[2] << 20, h[2] >> 12 | h[3] << 14, h[3] >> 18 | h[4] << 8];
        let mut tag = [0; 4];
        let mut carry = 0;
        let mut at = 0;
        while at < 4 {
            let total = number[at] as u64 + self.pad[at] as u64 + carry;
            tag[at] = total as u32;
            carry = total >> 32;
            at += 1;
        }
        tag
    }
}

/// `h`, or `h - p` if that is not negative; no branch.
#[inline(always)]
const fn select_reduced(h: [u32; 5]) -> [u32; 5] {
    let mut reduced = [0; 5];
    let mut carry = 5;
    let mut at = 0;
    while at < 5 {
        reduced[at] = h[at] + carry;
        carry = reduced[at] >> 26;
        reduced[at] &= LIMB;
        at += 1;
    }
    // All ones if h + 5 reached 2^130, which is when h is at least p.
    let mask = 0u32.wrapping_sub(carry & 1);
    let mut at = 0;
    while at < 5 {
        reduced[at] = (reduced[at] & mask) | (h[at] & !mask);
        at += 1;
    }
    reduced
}

/// 128 bits in limbs; `top` is the bit above, in the last limb.
#[inline(always)]
const fn limbs(words: [u32; 4], top: u32) -> [u32; 5] {
    let [w0, w1, w2, w3] = words;
    [
        w0 & LIMB,
        (w0 >> 26 | w1 << 6) & LIMB,
        (w1 >> 20 | w2 << 12) & LIMB,
        (w2 >> 14 | w3 << 18) & LIMB,
        w3 >> 8 | top,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: [u32; 16], blocks: &[[u32; 4]]) -> [u32; 4] {
        let mut poly = Poly1305::new(&key);
        for block in blocks {
            poly.block(*block);
        }
        poly.tag()
    }

    /// RFC 8439 appendix A.3, vectors 7 to 10: where a carry or the last reduction goes wrong.
    #[test]
    fn carries_and_the_last_reduction_are_right() {
        let ones = [u32::MAX; 4];
        let [one, two] = [1, 2].map(|r| core::array::from_fn(|at| if at == 0 { r } else { 0 }));
        assert_eq!(
            tag(one, &[ones, [0xffff_fff0, u32::MAX, u32::MAX, u32::MAX], [0x11, 0, 0, 0]]),
            [5, 0, 0, 0]
        );
        let fb = [0xfefe_fefb, 0xfefe_fefe, 0xfefe_fefe, 0xfefe_fefe];
        assert_eq!(tag(one, &[ones, fb, [0x0101_0101; 4]]), [0; 4]);
        assert_eq!(
            tag(two, &[[0xffff_fffd, u32::MAX, u32::MAX, u32::MAX]]),
            [0xffff_fffa, u32::MAX, u32::MAX, u32::MAX]
        );
    }
}
