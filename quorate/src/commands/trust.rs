//! What is trusted: the genesis of a cluster, from its cluster file or from a policy.
//!
//! Invariant: of either file nothing but the genesis counts for what holds.

use crate::args::{AuditPolicyArgs, TrustArgs};
use crate::commands::connect;
use crate::failure::{CommandResult, Failure};
use crate::say;
use quorate_crypto::Ed25519Verifier;
use quorate_protocol::Genesis;
use quorate_transport::{PolicyFile, PolicyFileError};
use std::path::Path;
use std::process::ExitCode;

/// The genesis that is trusted; a policy counts before a cluster file.
pub fn genesis(args: &TrustArgs) -> Result<Genesis, Failure> {
    match (&args.policy, &args.cluster) {
        (Some(path), _) => Ok(read_policy(path)?.genesis().clone()),
        (None, Some(path)) => Ok(connect::read_cluster(path)?.genesis().clone()),
        (None, None) => Err(Failure::new("nothing is trusted: name --cluster FILE or --policy FILE")),
    }
}

/// Reads a policy; an error says which one.
fn read_policy(path: &Path) -> Result<PolicyFile, Failure> {
    PolicyFile::read(path).map_err(|error| match error {
        PolicyFileError::Io { .. } => Failure::new(error),
        other => Failure::new(format!("{}: {other}", path.display())),
    })
}

/// Prints the policy of a cluster.
pub fn print_policy(args: &AuditPolicyArgs) -> CommandResult {
    let cluster = connect::read_cluster(&args.cluster)?;
    say!("{}", PolicyFile::new(cluster.genesis().clone()).to_toml().trim_end());
    Ok(ExitCode::SUCCESS)
}

/// A verifier that knows the keys of the members.
pub fn verifier(genesis: &Genesis) -> Ed25519Verifier {
    let members = genesis.members.members().iter();
    Ed25519Verifier::with_keys(members.flat_map(|member| [member.consensus, member.blocks]))
}
