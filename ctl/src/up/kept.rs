//! A path that `up` is told of once: it is kept for later starts, until another one is named or it is forgotten.

use std::path::{Path, PathBuf};

/// What a flag says about such a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// This one from now on. It is text, so that `cluster.json` can hold it.
    Path(String),
    /// None any more.
    Forgotten,
}

/// Forgets what was kept.
const NONE: &str = "none";

impl Kept {
    /// A file, as it is found from everywhere, or `none`.
    ///
    /// # Errors
    /// As told to the user.
    pub fn file(text: &str) -> Result<Self, String> {
        Self::parse(text, |path| std::path::absolute(path).map_err(|error| error.to_string()))
    }

    /// What `path` makes of the text, or `none`.
    ///
    /// # Errors
    /// As told to the user.
    pub fn parse(text: &str, path: impl FnOnce(&str) -> Result<PathBuf, String>) -> Result<Self, String> {
        if text == NONE {
            return Ok(Self::Forgotten);
        }
        let text = path(text)?.into_os_string().into_string();
        text.map(Self::Path).map_err(|path| format!("{} is no UTF-8", Path::new(&path).display()))
    }

    /// What is kept after this start.
    pub fn over(asked: Option<Self>, known: Option<String>) -> Option<String> {
        match asked {
            Some(Self::Path(path)) => Some(path),
            Some(Self::Forgotten) => None,
            None => known,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_kept_until_another_or_none_is_named() {
        let named = |text| Some(Kept::file(text).expect("a path"));
        let known = || Some("/old".to_owned());
        assert_eq!(Kept::over(named("/new"), known()).as_deref(), Some("/new"));
        assert_eq!(Kept::over(None, known()), known());
        assert_eq!(Kept::over(named("none"), known()), None);
        let relative = Kept::over(named("file.yaml"), None).expect("a path");
        assert!(Path::new(&relative).is_absolute(), "{relative}");
    }
}
