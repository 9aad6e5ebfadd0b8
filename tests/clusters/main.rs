//! A Redis Cluster: the promises that one server keeps, while slots move and nodes go.

mod basics;
