//! Reads the resource usage of this process from `/proc`. On other systems than Linux, all values are missing.

use std::time::Duration;

use crate::observe::ProcessUsage;

/// The number of ticks per second in `/proc`. The kernel converts its own ticks to this number on all architectures
/// that Callgate supports.
const TICKS_PER_SECOND: u64 = 100;

/// Returns the current CPU time, memory, threads and file descriptors of this process.
pub(super) fn usage() -> ProcessUsage {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let open_fds = std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64);
    let usage = parse(&read("/proc/self/stat"), &read("/proc/self/status"), &read("/proc/stat"));
    ProcessUsage {
        // The descriptor of the directory itself is open while the directory is read, so this descriptor is not
        // counted.
        open_fds: open_fds.map(|count| count.saturating_sub(1)),
        max_fds: max_fds(&read("/proc/self/limits")),
        ..usage
    }
}

fn parse(stat: &str, status: &str, system: &str) -> ProcessUsage {
    // The program name is in parentheses, and may itself contain spaces and parentheses. The last `)` ends the name.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    // `number` is the number of a field in proc_pid_stat(5). The first field after the program name has the number 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let booted = system.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<u64>().ok());
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib.saturating_mul(1024))
    };
    let ticks = |count: u64| Duration::from_millis(count.saturating_mul(1000 / TICKS_PER_SECOND));
    ProcessUsage {
        cpu: field(14).zip(field(15)).map(|(user, system)| ticks(user.saturating_add(system))),
        threads: field(20),
        started: booted.zip(field(22)).map(|(booted, start)| booted as f64 + ticks(start).as_secs_f64()),
        virtual_bytes: kib("VmSize"),
        resident_bytes: kib("VmRSS"),
        ..ProcessUsage::default()
    }
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_linux_are_read() {
        let stat =
            "7 (a) b) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 4 0 250 1000 300 18446744073709551615";
        let usage = parse(stat, "VmSize:\t    2048 kB\nVmRSS:\t     512 kB\n", "cpu 1\nbtime 1000\n");
        assert_eq!((usage.cpu, usage.threads), (Some(Duration::from_secs(2)), Some(4)));
        assert_eq!((usage.started, usage.resident_bytes), (Some(1002.5), Some(512 << 10)));
        assert_eq!(usage.virtual_bytes, Some(2 << 20));
        let limits = "Limit   Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(max_fds(limits), Some(1024));
        assert_eq!(
            max_fds("Max open files            unlimited            unlimited            files"),
            Some(u64::MAX)
        );
    }

    #[test]
    fn a_system_without_these_files_has_no_values() {
        let usage = parse("", "", "");
        assert!(usage.cpu.is_none() && usage.started.is_none() && usage.resident_bytes.is_none());
        assert_eq!(max_fds(""), None);
    }
}
