//! The memory limit of the process: the setting, or a share of the memory of its control groups and
//! the machine.

use std::{fs, path::Path};

/// Share of the available memory that the process may use by default, in percent.
const DEFAULT_PERCENT: u64 = 75;

/// Returns the setting `memory_max`, in bytes. If it is 0, returns three quarters of the available
/// memory; 0 (no limit) if that is unknown.
pub(crate) fn bytes_max(set: usize) -> usize {
    if set > 0 {
        return set;
    }
    let available = available(Path::new("/"));
    available.map_or(0, |bytes| {
        usize::try_from(bytes / 100 * DEFAULT_PERCENT).unwrap_or(usize::MAX)
    })
}

/// Returns the available memory, in bytes: the least of the machine's memory and the limits of the
/// process's control groups. `root` contains `proc` and `sys`.
fn available(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let of_groups = groups.lines().filter_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        let (mounts, file): (&[&str], _) = match controllers {
            "" => (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (&["sys/fs/cgroup/memory"], "memory.limit_in_bytes")
            }
            _ => return None,
        };
        mounts
            .iter()
            .filter_map(|mount| least(&root.join(mount), path, file))
            .min()
    });
    let of_machine = fs::read_to_string(root.join("proc/meminfo"))
        .ok()
        .and_then(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("MemTotal:"))?;
            let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(kib << 10)
        });
    of_groups.chain(of_machine).min()
}

/// Returns the least limit of a control group and its ancestors. In a container the path may lie
/// outside of the mount, so missing files are skipped.
fn least(mount: &Path, path: &str, file: &str) -> Option<u64> {
    let path = Path::new(path.trim_start_matches('/'));
    let limit = |group: &Path| {
        fs::read_to_string(mount.join(group).join(file))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    path.ancestors().filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn machine(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        available(root.path())
    }

    #[test]
    fn the_least_limit_of_machine_and_control_groups_counts() {
        let memory = (
            "proc/meminfo",
            "MemTotal:        1048576 kB\nMemFree:  1 kB\n",
        );
        let v2 = ("proc/self/cgroup", "0::/a/b\n");
        let v1 = ("proc/self/cgroup", "5:devices:/x\n4:memory:/a/b\n0::/\n");
        /// Paths and texts.
        type Files<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Files<'_>, Option<u64>); 9] = [
            (&[], None),
            (&[memory], Some(1024 * MIB)),
            (&[memory, v2], Some(1024 * MIB)),
            (
                &[
                    memory,
                    v2,
                    ("sys/fs/cgroup/a/b/memory.max", "max\n"),
                    ("sys/fs/cgroup/a/memory.max", "max\n"),
                ],
                Some(1024 * MIB),
            ),
            (
                &[
                    memory,
                    v2,
                    ("sys/fs/cgroup/a/b/memory.max", "209715200\n"),
                    ("sys/fs/cgroup/a/memory.max", "max\n"),
                ],
                Some(200 * MIB),
            ),
            (
                &[
                    memory,
                    v2,
                    ("sys/fs/cgroup/a/b/memory.max", "209715200\n"),
                    ("sys/fs/cgroup/a/memory.max", "104857600"),
                ],
                Some(100 * MIB),
            ),
            // The path lies outside of the container: only the container's own group is visible.
            (
                &[memory, v2, ("sys/fs/cgroup/memory.max", "104857600\n")],
                Some(100 * MIB),
            ),
            (
                &[
                    memory,
                    v1,
                    (
                        "sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                        "104857600\n",
                    ),
                ],
                Some(100 * MIB),
            ),
            (
                &[
                    memory,
                    v1,
                    (
                        "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
                        "9223372036854771712\n",
                    ),
                ],
                Some(1024 * MIB),
            ),
        ];
        for (files, expected) in cases {
            assert_eq!(machine(files), expected, "{files:?}");
        }
    }

    #[test]
    fn the_setting_overrides_the_available_memory() {
        assert_eq!(bytes_max(7), 7);
        assert!(bytes_max(0) > 0, "this machine has memory");
    }
}
