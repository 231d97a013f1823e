//! The way of messages between members: late, lost, twice, in another order, or one way only.

use raft::eraftpb::Message;

use super::random::Random;

/// How bad it is.
#[derive(Clone, Copy, Debug)]
struct Weather {
    loss: u64,
    duplicates: u64,
    delay: u64,
    until: u64,
}

pub struct Network {
    random: Random,
    /// When it arrives, and a number that keeps the order of those that arrive together.
    travelling: Vec<(u64, Message)>,
    /// Cut links, from and to, with their ends.
    cuts: Vec<(usize, usize, u64)>,
    weather: Option<Weather>,
    /// For ever: this link is cut.
    pub scar: Option<(usize, usize)>,
}

impl Network {
    pub fn new(seed: u64) -> Self {
        let random = Random::new(seed, 2);
        Self { random, travelling: Vec::new(), cuts: Vec::new(), weather: None, scar: None }
    }

    pub fn cut(&mut self, from: usize, to: usize, until: u64) {
        self.cuts.push((from, to, until));
    }

    pub fn worsen(&mut self, loss: u64, duplicates: u64, delay: u64, until: u64) {
        self.weather = Some(Weather { loss, duplicates, delay, until });
    }

    /// From now on all is well, but for the scar.
    pub fn calm(&mut self, scar: Option<(usize, usize)>) {
        self.cuts.clear();
        self.weather = None;
        self.scar = scar;
    }

    /// Takes a message; false if it is lost at once.
    pub fn send(&mut self, now: u64, message: &Message) -> bool {
        let (from, to) = (place(message.from), place(message.to));
        let cut = self.cuts.iter().any(|(a, b, until)| (*a, *b) == (from, to) && now < *until);
        if cut || self.scar == Some((from, to)) {
            return false;
        }
        let weather = self.weather.filter(|weather| now < weather.until);
        let Weather { loss, duplicates, delay, .. } =
            weather.unwrap_or(Weather { loss: 0, duplicates: 0, delay: 2, until: 0 });
        if self.random.percent(loss) {
            return false;
        }
        self.travelling.push((now + 1 + self.random.below(delay), message.clone()));
        if self.random.percent(duplicates) {
            self.travelling.push((now + 1 + self.random.below(8 * delay), message.clone()));
        }
        true
    }

    /// What arrives now.
    pub fn arriving(&mut self, now: u64) -> Vec<Message> {
        if self.travelling.iter().all(|(at, _)| *at > now) {
            return Vec::new();
        }
        self.travelling.extract_if(.., |(at, _)| *at <= now).map(|(_, message)| message).collect()
    }
}

/// Where the member of that Raft id stands.
pub fn place(id: u64) -> usize {
    usize::try_from(id - 1).expect("members are numbered from 1")
}
