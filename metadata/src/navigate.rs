//! Where things stand in the tree, for auditors, who read all of the state and ask for no permission.
//!
//! Invariant: nothing here is shown to a client; walks towards the root are bounded by [`ANCESTORS_MAX`].

use quorate_protocol::Ino;
use quorate_protocol::file::Name;

use crate::directory::{ANCESTORS_MAX, hash_under};
use crate::keys;
use crate::rows::{self, DirectoryKey, Entry, Inode, Link};
use crate::view::{Error, Key, View};

/// The place of a name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The key of its entry, there or not.
    pub key: Key,
    /// What it names.
    pub ino: Option<Ino>,
}

/// The place of `name` in `directory`; `None` if that is no directory.
///
/// # Errors
/// [`Error::Missing`] and [`Error::Corrupt`], of the view.
pub fn locate(view: &dyn View, directory: Ino, name: &Name) -> Result<Option<Located>, Error> {
    let Some(secret) = rows::get::<DirectoryKey>(view, &keys::directory_key(directory))? else {
        return Ok(None);
    };
    let key = keys::entry(directory, &hash_under(&secret, name).key);
    let entry = rows::get::<Entry>(view, &key)?.filter(|entry| entry.name == *name);
    Ok(Some(Located { key, ino: entry.map(|entry| entry.ino) }))
}

/// The names from the root to an inode, by one of its links; `None` if nothing leads to it.
///
/// # Errors
/// [`Error::Missing`] and [`Error::Corrupt`], of the view.
pub fn path_of(view: &dyn View, ino: Ino) -> Result<Option<Vec<Name>>, Error> {
    let mut names = Vec::new();
    let mut current = ino;
    for _ in 0..ANCESTORS_MAX {
        if current == keys::ROOT_INO {
            names.reverse();
            return Ok(Some(names));
        }
        let Some(inode) = rows::get::<Inode>(view, &keys::inode(current))? else { return Ok(None) };
        let Some(link) = first_link(view, current, &inode)? else { return Ok(None) };
        let entry = rows::get::<Entry>(view, &keys::entry(link.parent, &link.name))?;
        let Some(entry) = entry.filter(|entry| entry.ino == current) else { return Ok(None) };
        names.push(entry.name);
        current = link.parent;
    }
    Ok(None)
}

fn first_link(view: &dyn View, ino: Ino, inode: &Inode) -> Result<Option<Link>, Error> {
    if inode.parent != 0 {
        return Ok(Some(Link { parent: inode.parent, name: inode.name }));
    }
    let (start, end) = (keys::kind_start(ino, keys::KIND_LINK), keys::kind_end(ino, keys::KIND_LINK));
    let Some((key, _)) = view.next(&start, Some(&end))? else { return Ok(None) };
    rows::get(view, &key)
}
