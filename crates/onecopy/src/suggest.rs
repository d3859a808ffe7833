//! "Did you mean": the names nearest to a word that is none of them.

/// At most three of `names`, nearest first: those that differ from `word` by few letters, contain it or are part of it. One
/// that differs in nothing but the case of its letters stands alone.
pub(crate) fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let word = word.to_ascii_lowercase();
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    let mut found: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            let lower = name.to_ascii_lowercase();
            let distance = distance(&word, &lower);
            let related = word.len() >= 3 && (lower.contains(&word) || word.contains(&lower) && lower.len() >= 3);
            (distance <= allowed || related).then_some((distance, name))
        })
        .collect();
    found.sort_by_key(|&(distance, _)| distance);
    let exact = found.first().is_some_and(|&(distance, _)| distance == 0);
    found.truncate(if exact { 1 } else { 3 });
    found.into_iter().map(|(_, name)| name).collect()
}

/// The number of letters to insert, delete, replace or swap with their neighbour (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().take(40).collect();
    let to: Vec<char> = to.chars().collect();
    let mut before = vec![0; to.len() + 1];
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for row in 1..=from.len() {
        let mut next = vec![row; to.len() + 1];
        for column in 1..=to.len() {
            let differs = usize::from(from[row - 1] != to[column - 1]);
            next[column] = (last[column] + 1).min(next[column - 1] + 1).min(last[column - 1] + differs);
            let swapped = row > 1 && column > 1 && from[row - 1] == to[column - 2] && from[row - 2] == to[column - 1];
            if swapped {
                next[column] = next[column].min(before[column - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, next);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn counts_letters() {
        assert_eq!(distance("tpc", "tcp"), 1);
        assert_eq!(distance("", "mq"), 2);
        assert_eq!(distance("fifo", "fifo"), 0);
        assert_eq!(distance("mutex", "futex"), 1);
    }

    #[test]
    fn names_what_is_near_and_nothing_else() {
        assert_eq!(nearest("tpc", ["fifo", "tcp", "udp"]), ["tcp"]);
        assert_eq!(nearest("MQ", ["mq", "sem"]), ["mq"]);
        assert_eq!(nearest("usr3", ["USR1", "HUP"]), ["USR1"]);
        assert_eq!(nearest("rwlok", ["rwlock", "flock"]), ["rwlock"]);
        assert!(nearest("banana", ["fifo", "tcp", "udp"]).is_empty());
    }
}
