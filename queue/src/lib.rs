//! Keeps mail and decides what goes when: log, journal, schedule, site table, fan-out.
