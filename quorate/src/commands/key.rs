//! `quorate key`: makes and shows keys.

use crate::args::{KeyAction, KeyArgs};
use crate::failure::CommandResult;
use quorate_replica::provision::new_principal;
use quorate_transport::KeyFile;
use std::process::ExitCode;

/// Makes or shows a key.
pub fn run(args: &KeyArgs) -> CommandResult {
    match &args.action {
        KeyAction::New { file } => {
            let secret = new_principal(file)?;
            println!("principal {}", secret.public());
        }
        KeyAction::Show { file } => {
            let key = KeyFile::read(file)?;
            println!("{} {}", key.kind(), key.public());
        }
    }
    Ok(ExitCode::SUCCESS)
}
