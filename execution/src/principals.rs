//! Principals: who may act as whom, and the operations that change it (rule S6).
//!
//! Invariants: whoever acts has passed through [`resolve`]; squash maps the acting identity only; nobody can
//! revoke or demote himself, so an administrator always remains.

use quorate_crypto::PublicKey;
use quorate_metadata::keys::{self, Counter};
use quorate_metadata::rows::put;
use quorate_metadata::{Caller, Errno, Error, View};
use quorate_protocol::operation::PrincipalRights;
use quorate_protocol::{Credential, Groups, PrincipalNumber, Reply};

use crate::rows::{PrincipalKeyRow, PrincipalRow, find_principal, take_number};

/// The user and group that POSIX reserves for "none" ((uid_t) -1).
const NOBODY: u32 = u32::MAX;

/// The identity that `credential` stands for when nothing maps it; `None` when its groups are those of the
/// principal's row.
pub(crate) fn plain(credential: &Credential) -> Option<Caller> {
    match &credential.groups {
        Groups::Listed(groups) => {
            Some(Caller { uid: credential.uid, gid: credential.gid, groups: groups.to_vec() })
        }
        Groups::OfPrincipal => None,
    }
}

/// Who acts when a principal with these rights names `credential`.
///
/// # Errors
/// `EINVAL` for a credential that is none, `EPERM` when the principal may not act as it.
pub fn resolve(rights: &PrincipalRights, credential: &Credential) -> Result<Caller, Errno> {
    if credential.uid == NOBODY || credential.gid == NOBODY {
        return Err(Errno::EINVAL);
    }
    if let (0, Some((uid, gid))) = (credential.uid, rights.squash_root) {
        return Ok(Caller { uid, gid, groups: Vec::new() });
    }
    let groups = match &credential.groups {
        Groups::Listed(groups) => groups.to_vec(),
        Groups::OfPrincipal => rights.gids.to_vec(),
    };
    if !ascends(&groups) {
        return Err(Errno::EINVAL);
    }
    let named = [credential.gid];
    let may = |gid: &u32| rights.gids.binary_search(gid).is_ok();
    let allowed = rights.anyone
        || rights.uids.binary_search(&credential.uid).is_ok() && named.iter().chain(&groups).all(may);
    if !allowed {
        return Err(Errno::EPERM);
    }
    Ok(Caller { uid: credential.uid, gid: credential.gid, groups })
}

/// Whether rights are in the one form in which they are stored.
#[must_use]
pub(crate) fn rights_are_canonical(rights: &PrincipalRights) -> bool {
    let squash = rights.squash_root.is_none_or(|(uid, gid)| uid != NOBODY && gid != NOBODY);
    squash && ascends(&rights.uids) && ascends(&rights.gids) && ascends(&rights.realms)
}

fn ascends(numbers: &[u32]) -> bool {
    numbers.is_sorted_by(|a, b| a < b)
}

/// Registers a principal under the next number.
pub(crate) fn register(view: &mut dyn View, key: &PublicKey, rights: PrincipalRights) -> Result<(), Error> {
    let by_key = keys::principal_key(key);
    if view.get(&by_key)?.is_some() {
        // Another key that begins with the same 23 bytes.
        return Err(Errno::EEXIST.into());
    }
    let number = take_number(view, Counter::Principal)?;
    let number = PrincipalNumber::try_from(number).map_err(|_| Errno::ENOSPC)?;
    put(view, by_key, &PrincipalKeyRow { key: *key, number });
    put(view, keys::principal(number), &PrincipalRow { key: *key, rights, sessions: 0 });
    Ok(())
}

/// `PutPrincipal`: registers a key, or replaces its rights.
pub(crate) fn put_principal(
    view: &mut dyn View,
    actor: &PrincipalRow,
    key: &PublicKey,
    rights: &PrincipalRights,
) -> Result<Reply, Error> {
    administrator(actor)?;
    if actor.key == *key && !rights.administrator {
        return Err(Errno::EBUSY.into());
    }
    if !rights_are_canonical(rights) || key.validate().is_err() {
        return Err(Errno::EINVAL.into());
    }
    match find_principal(view, key)? {
        Some((number, row)) => {
            put(view, keys::principal(number), &PrincipalRow { rights: rights.clone(), ..row });
        }
        None => register(view, key, rights.clone())?,
    }
    Ok(Reply::Empty)
}

/// `RemovePrincipal`: revokes a key. Its sessions take no more envelopes and end at their deadlines.
pub(crate) fn remove_principal(
    view: &mut dyn View,
    actor: &PrincipalRow,
    number: PrincipalNumber,
) -> Result<Reply, Error> {
    administrator(actor)?;
    let key = keys::principal(number);
    let row = quorate_metadata::rows::get::<PrincipalRow>(view, &key)?.ok_or(Errno::ENOENT)?;
    if row.key == actor.key {
        return Err(Errno::EBUSY.into());
    }
    view.delete(keys::principal_key(&row.key));
    view.delete(key);
    Ok(Reply::Empty)
}

fn administrator(actor: &PrincipalRow) -> Result<(), Errno> {
    if actor.rights.administrator { Ok(()) } else { Err(Errno::EPERM) }
}
