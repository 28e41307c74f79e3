//! What is true of the site table, through its public API: connections, health, rates, forgetting.

mod facts;
mod forgetting;
mod rates;
mod windows;
