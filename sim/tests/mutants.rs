//! Breakages of consensus on purpose: each is caught, and a program without the feature `mutants` has none.
//!
//! Invariant: nothing here depends on the machine.

/// What a program contains whose consensus can be broken on purpose.
const MARKER: &str = "this consensus can be broken on purpose";

#[test]
fn only_a_program_with_the_feature_has_breakages() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_quorate-sim"));
    let program = program.unwrap_or_else(|error| panic!("the program: {error}"));
    let starts = program.iter().enumerate().filter(|(_, byte)| **byte == MARKER.as_bytes()[0]);
    let found = starts.map(|(at, _)| at).any(|at| program[at..].starts_with(MARKER.as_bytes()));
    assert_eq!(found, cfg!(feature = "mutants"));
}

#[cfg(feature = "mutants")]
mod broken {
    use quorate_sim::hunt::{Ground, hunt};
    use quorate_sim::mutant::Mutant;
    use quorate_sim::plan::Plan;
    use quorate_sim::run::run_plan;
    use quorate_sim::trace::Story;

    /// Every breakage is caught within this many seeds.
    const SEEDS: u64 = 1000;

    #[test]
    fn every_breakage_of_the_protocol_is_caught() {
        let protocol = Mutant::all().into_iter().skip(Mutant::DRIVERS.len());
        let survivors: Vec<String> =
            protocol.filter(|mutant| hunt(*mutant, SEEDS).is_none()).map(Mutant::name).collect();
        assert_eq!(survivors, Vec::<String>::new());
        assert!(Mutant::all().len() >= 25);
    }

    #[test]
    fn a_breakage_ends_with_its_run() {
        for mutant in Mutant::all() {
            let plan = Ground::of(mutant).plan(0);
            let _ = run_plan(Plan { mutant: Some(mutant), ..plan.clone() }, Story::Silent);
            assert_eq!(run_plan(plan, Story::Silent).failure, None, "after {}", mutant.name());
        }
    }
}
