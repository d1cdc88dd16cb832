//! Latencies in buckets that grow with the value: 32 to each power of two, so a percentile is at
//! most 3 % too high, for a few kilobytes however many requests there were.

use std::time::Duration;

/// log2 of the buckets in each power of two.
const FINENESS: u32 = 5;
/// 2^36 µs is 19 hours; more counts as that.
const LARGEST: u64 = 1 << 36;

/// A histogram of durations, in microseconds.
#[derive(Debug, Default, Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

impl Histogram {
    /// Counts one duration.
    pub fn add(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros())
            .unwrap_or(LARGEST)
            .min(LARGEST);
        let index = index(micros);
        if self.buckets.len() <= index {
            self.buckets.resize(index + 1, 0);
        }
        self.buckets[index] += 1;
        self.count += 1;
        self.max = self.max.max(duration);
    }

    /// The duration that the fraction `part` (0.5: half) of all do not exceed; zero if there are none.
    pub fn percentile(&self, part: f64) -> Duration {
        let wanted = (self.count as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_micros(upper(index)).min(self.max);
            }
        }
        self.max
    }

    /// The middle one.
    pub fn p50(&self) -> Duration {
        self.percentile(0.5)
    }

    /// Only one in a hundred is longer.
    pub fn p99(&self) -> Duration {
        self.percentile(0.99)
    }

    /// The longest, exactly.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }
}

fn index(micros: u64) -> usize {
    let shift = (u64::BITS - micros.leading_zeros()).saturating_sub(FINENESS + 1);
    ((u64::from(shift) << FINENESS) + (micros >> shift)) as usize
}

/// The largest value in a bucket.
fn upper(index: usize) -> u64 {
    let index = index as u64;
    let shift = (index >> FINENESS).saturating_sub(1);
    ((index - (shift << FINENESS) + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_gap_or_overlap() {
        let mut last = 0;
        for micros in 0..200_000 {
            let index = index(micros);
            assert!(
                index == last || index == last + 1,
                "{micros} is in {index} after {last}"
            );
            assert!(micros <= upper(index), "{micros} is above {}", upper(index));
            assert!(
                index == 0 || micros > upper(index - 1),
                "{micros} belongs below {index}"
            );
            last = index;
        }
        assert!(index(LARGEST) < 1200);
    }

    #[test]
    fn percentiles_are_close_and_never_too_low() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.p99(), Duration::ZERO);
        for millis in 1..=1000 {
            histogram.add(Duration::from_millis(millis));
        }
        for (part, exact) in [(0.5, 500), (0.99, 990), (1.0, 1000)] {
            let found = histogram.percentile(part).as_secs_f64() * 1000.0;
            let exact = f64::from(exact);
            assert!((exact..exact * 1.04).contains(&found), "{part}: {found} ms");
        }
        assert_eq!(
            (histogram.max(), histogram.count()),
            (Duration::from_secs(1), 1000)
        );
    }
}
