//! Whole trees and the programs that people use on them: cp, diff, tar, rsync, find, git, rm.

use crate::harness::{Cluster, copy_sources, shell, shell_within};
use std::time::Duration;

#[test]
fn copies_are_equal_to_the_source() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    let source = cluster.home().join("source");
    let count = copy_sources(&source);
    let from = source.display();
    let script = format!(
        "cp -a {from} copy
         diff -r {from} copy
         list() {{ find . ! -type d -printf '%P %y %m %U:%G %s %l %T@\\n' , -type d -printf '%P %m %U:%G %T@\\n' | sort; }}
         diff <(cd {from} && list) <(cd copy && list)
         test $(find copy -type f | wc -l) = {count}
         rm -r copy
         test -z \"$(ls -A)\""
    );
    shell_within(&mount.path, &script, Duration::from_secs(120)).expect(0);
}

#[test]
fn archives_and_synchronisation() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    let source = cluster.home().join("source");
    copy_sources(&source);
    // One room of it is enough for every way to write.
    let script = format!(
        "tar -C {from} -cf - . | (mkdir unpacked && tar -C unpacked -xf -)
         diff -r {from} unpacked
         rsync -a {from}/ synced/
         diff -r {from} synced
         echo changed >> synced/Cargo.toml
         rsync -a --delete --itemize-changes unpacked/ synced/ > ../rsync.log
         diff -r unpacked synced
         test $(grep -c '^>f' ../rsync.log) = 1
         tar -cf ../again.tar unpacked && tar -df ../again.tar",
        from = source.join("quorate").display()
    );
    shell_within(&mount.path, &script, Duration::from_secs(90)).expect(0);
}

#[test]
fn git_works_on_a_mount() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    let source = cluster.home().join("source");
    copy_sources(&source);
    let script = format!(
        "mkdir tree && cp -r {0}/quorate {0}/transport tree && cp {0}/README.md tree",
        source.display()
    );
    shell_within(&mount.path, &script, Duration::from_secs(60)).expect(0);
    let script = "cd tree
        git init -q . && git config user.name Tester && git config user.email tester@example.org
        git add . && git commit -q -m first
        echo change >> README.md && git commit -q -a -m second
        git fsck --full --strict
        git gc -q && git fsck --full
        test -z \"$(git status --porcelain)\"
        git checkout -q HEAD~1 && ! grep -q '^change$' README.md
        cd .. && git clone -q tree clone && diff -r --exclude=.git tree clone
        rm -rf tree clone && test -z \"$(ls -A)\"";
    shell_within(&mount.path, script, Duration::from_secs(120)).expect(0);
}

#[test]
fn a_large_directory_is_listed_whole_while_it_changes() {
    let cluster = Cluster::start();
    let mount = cluster.mount("a");
    mount.shell("mkdir many && cd many && for i in {1..1500}; do : > kept-$i; done");
    let path = mount.at("many");
    let storm = std::thread::spawn(move || {
        for round in 0..150 {
            std::fs::write(path.join(format!("passing-{round}")), "x").unwrap();
            std::fs::remove_file(path.join(format!("passing-{round}"))).unwrap();
        }
    });
    let mut listings = 0;
    while !storm.is_finished() || listings == 0 {
        let names: Vec<_> =
            std::fs::read_dir(mount.at("many")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let kept: std::collections::BTreeSet<_> =
            names.iter().filter(|name| name.to_str().unwrap().starts_with("kept-")).collect();
        assert_eq!(kept.len(), 1500, "nothing is missing");
        assert!(names.len() <= 1501 + 1, "nothing is listed twice: {}", names.len());
        listings += 1;
    }
    storm.join().unwrap();
    mount.shell("[ $(ls many | wc -l) = 1500 ] && [ $(find many -name 'kept-*7' | wc -l) = 150 ] && rm -r many && [ -z \"$(ls -A)\" ]");
    // Small helpers that look at the whole filesystem.
    shell(&mount.path, "df . >/dev/null && du -s . >/dev/null && stat -f . >/dev/null").expect(0);
}
