//! How the engine is set up.

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, LogLevel, Options};

use super::DELETION_WINDOW;
use crate::config::Limits;
use crate::mvcc::family::Family;

pub(super) fn db_options(limits: &Limits) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_db_write_buffer_size(limits.write_buffer_bytes);
    options.set_max_total_wal_size(64 << 20);
    // Stops at the first damaged record; the Raft log's own checks find what that cut off.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    // A log written over an old one keeps its size, so a sync writes no inode: 0.10 ms instead of 0.14 where we
    // measured. Records carry their log's number, so the old one's are never taken for its own.
    options.set_recycle_log_file_num(2);
    // Opening again on a full disk takes what these reserve; both grow with use.
    options.set_manifest_preallocation_size(64 << 10);
    options.set_max_background_jobs(2);
    options.set_max_open_files(256);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_max_manifest_file_size(4 << 20);
    options
}

fn compression(family: Family) -> DBCompressionType {
    match family {
        Family::Log | Family::Raft | Family::Meta | Family::Leases => DBCompressionType::None,
        _ => DBCompressionType::Lz4,
    }
}

/// How tables are written that `family` takes in.
pub fn table_options(family: Family) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_bloom_filter(10.0, false);
    table.set_format_version(5);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(compression(family));
    options
}

pub(super) fn family_options(family: Family, cache: &Cache, limits: &Limits) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_bloom_filter(10.0, false);
    table.set_format_version(5);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(compression(family));
    options.set_write_buffer_size(limits.write_buffer_bytes / 3);
    options.set_max_write_buffer_number(2);
    if matches!(family, Family::History | Family::Index | Family::Journal | Family::Log) {
        // These forget most of what they get. A file full of deletions is compacted soon, or what they
        // delete would take its space until the level above it is full.
        options.add_compact_on_deletion_collector_factory(DELETION_WINDOW, DELETION_WINDOW / 2, 0.5);
    }
    options.set_level_compaction_dynamic_level_bytes(true);
    // Memtables take memory in whole arena blocks; the default is an eighth of the write buffer.
    options.set_arena_block_size(64 << 10);
    options
}
