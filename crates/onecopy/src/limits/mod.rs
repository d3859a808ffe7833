//! The limits in force for this process on this machine, which of them are low, and how to raise them.

mod source;
mod table;

use std::fmt;

use crate::Mechanism;
use table::{LIMITS, Row};

/// A limit in force.
///
/// ```
/// use onecopy::Mechanism;
/// use onecopy::limits::{Value, limits_of};
///
/// let limits = limits_of(Mechanism::Pipe);
/// let atomic = limits.iter().find(|limit| limit.name == "PIPE_BUF").expect("a constant");
/// assert_eq!((atomic.value, atomic.unit), (Value::Number(4096), "bytes"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limit {
    /// Its name: a sysctl, a resource limit, or a constant.
    pub name: &'static str,
    /// What it is at this moment. An administrator may change it at any time.
    pub value: Value,
    /// What the value counts: "bytes", "messages", "queues".
    pub unit: &'static str,
    /// What it limits, in a few words.
    pub meaning: &'static str,
    /// Where it was read: a path, a resource limit, or "a constant".
    pub source: String,
    /// The command that raises it, or why none can.
    pub how_to_raise: String,
    /// Which values get in the way of ordinary work, for a limit where that can be said.
    pub advice: Option<Advice>,
}

impl Limit {
    /// Whether the present value gets in the way of ordinary work, as [`Limit::advice`] says. What is unlimited, or not there,
    /// or cannot be read, does not count as low.
    ///
    /// ```
    /// use onecopy::limits::limits;
    ///
    /// for limit in limits().iter().filter(|limit| limit.is_low()) {
    ///     let advice = limit.advice.as_ref().expect("what is low has advice");
    ///     println!("{} is {}: {}; {}", limit.name, limit.value, advice.because, advice.remedy.command);
    /// }
    /// ```
    #[must_use]
    pub fn is_low(&self) -> bool {
        let (Some(advice), Some(number)) = (&self.advice, self.value.number()) else { return false };
        match advice.low_if {
            LowIf::Below(enough) => number < enough,
            LowIf::BelowUnlessZero(enough) => number != 0 && number < enough,
            LowIf::Above(harmless) => number > harmless,
        }
    }
}

/// When a limit is low, why that matters, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Advice {
    /// Which values are low.
    pub low_if: LowIf,
    /// What goes wrong with a low value.
    pub because: &'static str,
    /// What sets it to the first value that is not low.
    pub remedy: Remedy,
}

/// The values of a limit that get in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LowIf {
    /// Those below this one.
    Below(u64),
    /// Those below this one but 0, which stands for no limit.
    BelowUnlessZero(u64),
    /// Those above this one: the limit is a switch that forbids more the higher it is.
    Above(u64),
}

impl LowIf {
    /// The nearest value that is not low.
    #[must_use]
    pub fn enough(self) -> u64 {
        match self {
            Self::Below(number) | Self::BelowUnlessZero(number) | Self::Above(number) => number,
        }
    }
}

impl fmt::Display for LowIf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below(number) => write!(f, "below {number}"),
            Self::BelowUnlessZero(number) => write!(f, "below {number}, except 0"),
            Self::Above(number) => write!(f, "above {number}"),
        }
    }
}

/// A command for a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remedy {
    /// The command, with the value filled in.
    pub command: String,
    /// Whether this process may not run it with success, but root may.
    pub as_root: bool,
}

/// The value of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value {
    /// A number of what [`Limit::unit`] says.
    Number(u64),
    /// There is no limit.
    Unlimited,
    /// This kernel, or this container, does not have it.
    Absent,
    /// It is there and could not be read.
    Unreadable,
}

impl Value {
    /// The number, if it is one.
    #[must_use]
    pub fn number(self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => f.pad(&number.to_string()),
            Self::Unlimited => f.pad("unlimited"),
            Self::Absent => f.pad("not present on this kernel"),
            Self::Unreadable => f.pad("cannot be read"),
        }
    }
}

/// Every limit that this library knows, each once.
#[must_use]
pub fn limits() -> Vec<Limit> {
    LIMITS.iter().map(Row::read).collect()
}

/// The limits that concern a mechanism.
#[must_use]
pub fn limits_of(mechanism: Mechanism) -> Vec<Limit> {
    LIMITS.iter().filter(|row| row.concerns.contains(&mechanism)).map(Row::read).collect()
}

impl Row {
    fn read(&self) -> Limit {
        Limit {
            name: self.name,
            value: self.source.value(),
            unit: self.unit,
            meaning: self.meaning,
            source: self.source.place(),
            how_to_raise: self.source.how_to_raise(),
            advice: self.low.map(|(low_if, because)| {
                let remedy = self.source.remedy(low_if.enough());
                Advice { low_if, because, remedy }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(value: Value, low_if: LowIf) -> Limit {
        let remedy = Remedy { command: "true".into(), as_root: false };
        let advice = Some(Advice { low_if, because: "of this test", remedy });
        Limit { name: "x", value, unit: "", meaning: "", source: "".into(), how_to_raise: "".into(), advice }
    }

    #[test]
    fn low_begins_where_the_advice_says() {
        let low = |number, low_if| limit(Value::Number(number), low_if).is_low();
        assert!(low(9, LowIf::Below(10)) && !low(10, LowIf::Below(10)) && low(0, LowIf::Below(10)));
        assert!(low(9, LowIf::BelowUnlessZero(10)) && !low(0, LowIf::BelowUnlessZero(10)));
        assert!(low(1, LowIf::Above(0)) && !low(0, LowIf::Above(0)));
        for value in [Value::Unlimited, Value::Absent, Value::Unreadable] {
            assert!(!limit(value, LowIf::Below(u64::MAX)).is_low(), "{value}");
        }
    }

    #[test]
    fn what_is_enough_is_not_low() {
        for row in LIMITS {
            let mut limit = row.read();
            if let Some(advice) = &limit.advice {
                let enough = advice.low_if.enough();
                assert!(advice.remedy.command.contains(&enough.to_string()) || limit.unit == "bytes", "{limit:?}");
                limit.value = Value::Number(enough);
                assert!(!limit.is_low(), "{limit:?}");
            }
        }
    }
}
