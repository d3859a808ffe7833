//! The rows as comma-separated values (RFC 4180): one line each, a column for each figure.

use super::{Report, Row, SideWork};

const HEADER: &str = "mechanism,kind,workload,size_bytes,cold,wait,path,messages,bytes_per_s,ratio_to_memcpy,ratio_to_memcpy_time,ratio_to_one_process,ns_per_message,p50_ns,p99_ns,\
                      p999_ns,max_ns,ratio_to_cache_line,channels,ratio_to_one_channel,plain_bytes_per_s,ratio_to_plain,fragmented,copies,cpu_ns_per_kib,lost,processes,ns_per_acquire,runs,\
                      spread,verified,error,skipped,sender_payload_bytes,sender_user_copied_bytes,\
                      sender_kernel_copied_bytes,sender_cpu_ns_per_gib,receiver_payload_bytes,\
                      receiver_user_copied_bytes,receiver_kernel_copied_bytes,receiver_cpu_ns_per_gib";

impl Report {
    /// The rows as comma-separated values, with a header. What a row lacks is empty.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for row in &self.rows {
            text.push_str(&line(row));
            text.push('\n');
        }
        text
    }
}

fn line(row: &Row) -> String {
    let latency = |of: fn(&super::Latency) -> u64| field(row.latency_ns.as_ref().map(of));
    [
        quoted(&row.mechanism),
        quoted(&row.kind),
        quoted(row.workload.as_deref().unwrap_or_default()),
        field(row.size_bytes),
        field(row.cold),
        quoted(row.wait.as_deref().unwrap_or_default()),
        quoted(row.path.as_deref().unwrap_or_default()),
        field(row.messages),
        field(row.bytes_per_s),
        field(row.ratio_to_memcpy),
        field(row.ratio_to_memcpy_time),
        field(row.ratio_to_one_process),
        field(row.ns_per_message),
        latency(|latency| latency.p50),
        latency(|latency| latency.p99),
        latency(|latency| latency.p999),
        latency(|latency| latency.max),
        field(row.ratio_to_cache_line),
        field(row.channels),
        field(row.ratio_to_one_channel),
        field(row.plain_bytes_per_s),
        field(row.ratio_to_plain),
        field(row.fragmented),
        field(row.copies),
        field(row.cpu_ns_per_kib),
        field(row.lost),
        field(row.processes),
        field(row.ns_per_acquire),
        field(row.runs),
        field(row.spread),
        field(row.verified),
        quoted(row.error.as_deref().unwrap_or_default()),
        quoted(row.skipped.as_deref().unwrap_or_default()),
        side(row.sender),
        side(row.receiver),
    ]
    .join(",")
}

/// The four fields of one side.
fn side(work: Option<SideWork>) -> String {
    [
        field(work.map(|work| work.payload_bytes)),
        field(work.map(|work| work.user_copied_bytes)),
        field(work.map(|work| work.kernel_copied_bytes)),
        field(work.map(|work| work.cpu_ns_per_gib)),
    ]
    .join(",")
}

fn field<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_as_many_fields_as_the_header() {
        assert_eq!(line(&Row::default()).split(',').count(), HEADER.split(',').count());
    }

    #[test]
    fn a_comma_and_a_quote_are_quoted() {
        assert_eq!(quoted("a \"b\", c"), "\"a \"\"b\"\", c\"");
    }
}
