//! Shuffle sharding: a flow gets a small hand of queues, dealt by its hash, so that two flows rarely share all of
//! theirs: one that floods its own leaves another at least one queue (upstream's `shufflesharding`).

/// The queues in the hand of a flow: `hand` distinct numbers below `deck`, the same for the same `hash`.
pub fn deal(hash: u64, deck: usize, hand: usize) -> Vec<usize> {
    let hand = hand.min(deck);
    let mut rest = hash;
    let mut cards: Vec<usize> = Vec::with_capacity(hand);
    for dealt in 0..hand {
        let left = (deck - dealt) as u64;
        let mut card = usize::try_from(rest % left).expect("a card is smaller than the deck");
        rest /= left;
        // The n-th of the cards that are still there: every smaller one that is gone moves it on by one.
        let mut gone = cards.clone();
        gone.sort_unstable();
        for taken in gone {
            if taken <= card {
                card += 1;
            }
        }
        cards.push(card);
    }
    cards
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_hand_has_distinct_cards_of_the_deck(hash in any::<u64>(), deck in 1usize..200, hand in 1usize..12) {
            let mut cards = deal(hash, deck, hand);
            prop_assert_eq!(&cards, &deal(hash, deck, hand));
            prop_assert_eq!(cards.len(), hand.min(deck));
            prop_assert!(cards.iter().all(|card| *card < deck));
            cards.sort_unstable();
            cards.dedup();
            prop_assert_eq!(cards.len(), hand.min(deck));
        }
    }

    #[test]
    fn every_hand_is_dealt_equally_often() {
        let mut seen = std::collections::BTreeMap::new();
        for hash in 0..600 {
            *seen.entry(deal(hash, 5, 2)).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 20, "ordered pairs of five");
        assert!(seen.values().all(|times| *times == 30), "{seen:?}");
    }
}
