//! `--initial-cluster`: the members of a new cluster, and the ids that follow from it.
//!
//! Every member computes the same ids by itself, as etcd's do: the id of a member is a hash of its peer URLs
//! and the cluster's token, and the id of the cluster a hash of its members' ids.

use std::collections::BTreeMap;
use std::str::FromStr;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use store::ClusterId;
use store::kv::MemberId;

use super::url::Url;

/// The members that start a cluster: by name, with their peer URLs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitialCluster(BTreeMap<String, Vec<Url>>);

/// A member of a new cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founder {
    /// Its id.
    pub id: MemberId,
    /// Where the others reach it; of several URLs the first.
    pub peer: Url,
}

impl InitialCluster {
    /// A cluster of one.
    pub fn sole(name: &str, peers: Vec<Url>) -> Self {
        Self(BTreeMap::from([(name.to_owned(), peers)]))
    }

    /// The founders by name.
    pub fn founders(&self, token: &str) -> BTreeMap<&str, Founder> {
        let founder = |urls: &Vec<Url>| {
            let peer = urls.first().expect("parsing gives every member a URL").clone();
            Founder { id: member_id(urls, token), peer }
        };
        self.0.iter().map(|(name, urls)| (name.as_str(), founder(urls))).collect()
    }

    /// The URLs of one member.
    pub fn urls(&self, name: &str) -> Option<&[Url]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// The URLs of all members.
    pub fn all_urls(&self) -> impl Iterator<Item = &Url> {
        self.0.values().flatten()
    }

    /// The id of the cluster that these members found.
    pub fn cluster_id(&self, token: &str) -> ClusterId {
        let mut ids: Vec<u64> = self.0.values().map(|urls| member_id(urls, token).0).collect();
        ids.sort_unstable();
        let bytes: Vec<u8> = ids.into_iter().flat_map(u64::to_be_bytes).collect();
        ClusterId(hash(&bytes))
    }
}

/// etcd's id of a member that was there from the start.
fn member_id(peers: &[Url], token: &str) -> MemberId {
    let mut urls: Vec<String> = peers.iter().map(Url::to_string).collect();
    urls.sort();
    MemberId(hash(format!("{}{token}", urls.concat()).as_bytes()))
}

/// The first eight bytes of a SHA-1, as etcd takes them. It names, it doesn't protect.
pub fn hash(bytes: &[u8]) -> u64 {
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes);
    let first = digest.as_ref().first_chunk().expect("a SHA-1 has twenty bytes");
    u64::from_be_bytes(*first)
}

impl FromStr for InitialCluster {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
        for part in text.split(',') {
            let (name, url) = part
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| format!("\"{part}\" is not of the form NAME=URL"))?;
            members.entry(name.to_owned()).or_default().push(url.parse()?);
        }
        let mut seen = BTreeMap::new();
        for (name, url) in members.iter().flat_map(|(name, urls)| urls.iter().map(move |url| (name, url))) {
            if let Some(other) = seen.insert(url, name) {
                return Err(format!("{url} is given to both {other} and {name}"));
            }
        }
        Ok(Self(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_a_stock_etcd() {
        // What etcd prints when it is started without any flag.
        let cluster: InitialCluster = "default=http://localhost:2380".parse().expect("parsed");
        assert_eq!(cluster.founders("etcd-cluster")["default"].id, MemberId(0x8e9e_05c5_2164_694d));
        assert_eq!(cluster.cluster_id("etcd-cluster"), ClusterId(0xcdf8_1819_4e3a_8c32));
    }

    #[test]
    fn the_token_and_the_urls_make_the_id() {
        let cluster: InitialCluster =
            "a=http://10.0.0.1:2380,b=http://10.0.0.2:2380".parse().expect("parsed");
        let (one, other) = (cluster.founders("x"), cluster.founders("y"));
        assert_ne!(one["a"].id, one["b"].id);
        assert_ne!(one["a"].id, other["a"].id);
        assert_ne!(cluster.cluster_id("x"), cluster.cluster_id("y"));
    }

    #[test]
    fn a_member_may_have_several_urls() {
        let cluster: InitialCluster =
            "a=http://10.0.0.1:2380,a=http://10.1.0.1:2380,b=http://10.0.0.2:2380".parse().expect("parsed");
        assert_eq!(cluster.urls("a").map(<[Url]>::len), Some(2));
        assert_eq!(cluster.founders("t")["a"].peer.host, "10.0.0.1");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            ("a", "NAME=URL"),
            ("=http://h:1", "NAME=URL"),
            ("a=h:1", "scheme"),
            ("a=http://h:1,b=http://h:1", "both a and b"),
        ] {
            let error = text.parse::<InitialCluster>().expect_err(text);
            assert!(error.contains(why), "{error}");
        }
    }
}
