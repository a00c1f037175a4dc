//! Both roles against each other and against peers that break every rule, over real sockets and real shared memory.

mod down;
mod hostile;
mod pairs;
mod raw;
mod servers;
