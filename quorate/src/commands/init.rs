//! `quorate init`: makes a cluster.

use crate::args::InitArgs;
use crate::failure::CommandResult;
use quorate_protocol::genesis::Parameters;
use quorate_replica::provision::{Plan, provision};
use std::process::ExitCode;

/// Makes the cluster and says what to do with it.
pub fn run(args: &InitArgs) -> CommandResult {
    let plan = Plan { addresses: args.replicas.clone(), parameters: Parameters::default(), owner: (0, 0) };
    let cluster = provision(&args.out, &plan)?;
    let members = cluster.members();
    let out = args.out.display();
    println!("cluster {}", cluster.cluster());
    println!(
        "{} replicas, survives {} faulty ones, {} must agree",
        members.n(),
        members.f(),
        members.quorum()
    );
    println!("next: carry {out}/replica-N to its host and run there: quorate replica --dir replica-N");
    println!("then: quorate mount PATH --cluster {out}/cluster.toml --key {out}/admin.key");
    Ok(ExitCode::SUCCESS)
}
