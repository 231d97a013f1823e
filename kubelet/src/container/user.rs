//! Finds the user that an image names in the image's own files.

use crate::container::Credentials;

/// One line of `/etc/passwd`.
struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Resolves `USER[:GROUP]`. Numbers need no entry; names do. A user without a group of its own has group 0.
///
/// # Errors
/// Names the user or group that isn't there, as runtimes do.
pub fn resolve(text: &str, passwd: &str, group: &str, image_groups: bool) -> Result<Credentials, String> {
    let (user, own_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let entry = users(passwd).find(|entry| entry.name == user || Some(entry.uid) == number);
    let uid = entry.as_ref().map(|entry| entry.uid).or(number);
    let uid = uid.ok_or_else(|| format!("unable to find user {user}: no matching entries in passwd file"))?;
    let gid = match own_group {
        Some(name) => group_number(name, group)?,
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    let member = entry.as_ref().filter(|_| image_groups).map(|entry| entry.name);
    // The own group stands among the further ones, too, as runtimes have it since CVE-2022-36109.
    let mut groups = vec![gid];
    groups.extend(member.map(|name| groups_of(name, group)).unwrap_or_default());
    groups.dedup();
    let home = entry.map_or("/", |entry| entry.home).to_owned();
    Ok(Credentials { uid, gid, groups, home })
}

fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).filter(|home| !home.is_empty()).unwrap_or("/");
        Some(User { name, uid, gid, home })
    })
}

/// Name, number and members of each group.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn group_number(name: &str, group: &str) -> Result<u32, String> {
    let found = groups(group).find(|(known, ..)| *known == name).map(|(_, gid, _)| gid);
    let missing = || format!("unable to find group {name}: no matching entries in group file");
    found.or_else(|| name.parse().ok()).ok_or_else(missing)
}

fn groups_of(user: &str, group: &str) -> Vec<u32> {
    let is_member = |members: &str| members.split(',').any(|member| member == user);
    groups(group).filter(|(_, _, members)| is_member(members)).map(|(_, gid, _)| gid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/sbin/nologin\nbroken\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlogs:x:40:web,other\nops:x:41:other\n";

    #[test]
    fn users_are_found_by_name_and_number() {
        let of = |uid, gid, groups: &[u32], home: &str| Credentials {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.to_owned(),
        };
        for (text, want) in [
            ("", of(0, 0, &[0], "/root")),
            ("web", of(33, 34, &[34, 40], "/var/www")),
            ("33", of(33, 34, &[34, 40], "/var/www")),
            ("web:ops", of(33, 41, &[41, 40], "/var/www")),
            ("33:77", of(33, 77, &[77, 40], "/var/www")),
            ("1000", of(1000, 0, &[0], "/")),
            ("1000:logs", of(1000, 40, &[40], "/")),
        ] {
            assert_eq!(resolve(text, PASSWD, GROUP, true), Ok(want), "{text}");
        }
        assert_eq!(resolve("web", PASSWD, GROUP, false).map(|c| c.groups), Ok(vec![34]));
        for (text, why) in [
            ("nobody", "unable to find user nobody: no matching entries in passwd file"),
            ("web:none", "unable to find group none: no matching entries in group file"),
        ] {
            assert_eq!(resolve(text, PASSWD, GROUP, true), Err(why.to_owned()));
        }
    }
}
