"""Jobtrail itself: is everything taken in, stored, asked and seen."""

from __future__ import annotations

from grafana.src import choices, looks
from grafana.src.frame import dashboard, sources
from grafana.src.panels import QUARTER, THIRD, WHOLE, Column, Panel, lines, listing, number
from grafana.src.queries import Query, now, over_time, rows_now
from grafana_foundation_sdk.models.dashboard import Dashboard

NO_DAEMON = "No daemon is being scraped"
NEVER = "It has not happened since the daemons started"
BY_INSTANCE = "{{instance}}"


def _rate(name: str, by: str = "", ref_id: str = "A", legend: str = "") -> Query:
    summed = f"sum by ({by})" if by else "sum"
    asked = f"{summed} (rate({name}[$__rate_interval]))"
    return over_time(asked, legend or " ".join(f"{{{{{label}}}}}" for label in by.split(", ")), ref_id)


def _more_of(name: str, by: str, ref_id: str = "A") -> Query:
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return over_time(f"sum by ({by}) (increase({name}[$__rate_interval]))", legend, ref_id)


def build() -> Dashboard:
    """The dashboard."""
    return dashboard(
        "health", "Jobtrail health", "Whether every event is taken in, stored and confirmed, and every job and GPU "
        "seen.",
        variables=(*sources(), choices.scraped_clusters()), panels=(*_numbers(), *_spool()),
        rows={"Given up and turned away": _given_up(),
              "Intake": _intake(), "Slurm": _slurm(), "Sampling": _sampling(), "GPU readers": _gpus(),
              "Benchmarks and chores": _chores(), "Processes": _processes()},
    )  # fmt: skip


def _numbers() -> tuple[Panel, ...]:
    return (
        number("Daemons", "Daemons that answer scrapes.", now("count(jobtrail_build_info)"), unit="short",
               absent=NO_DAEMON),
        number("Fullest spool", "Of the size at which new events are refused; hooks then keep them as files.",
               now("100 * max(jobtrail_spool_bytes / jobtrail_spool_limit_bytes)"), unit="percent", absent=NO_DAEMON,
               steps=looks.FULL_PERCENT, decimals=1),
        number("Oldest event waiting", "Age of the oldest event that is not in the database yet, of all daemons.",
               now("max(jobtrail_spool_oldest_unforwarded_age_seconds)"), unit="dtdurations",
               absent="Nothing waits", steps=((None, "green"), (300, "orange"), (3600, "red"))),
        number("Conflicts", "Events that the database holds with another hash: tampering, or two daemons on one chain.",
               now("sum(jobtrail_forward_conflicts_total)"), unit="short", absent=NO_DAEMON, steps=looks.NONE_IS_GOOD),
        number("Slurm last answered", "The longest time since Slurm answered one kind of question on all daemons.",
               now("max(time() - max by (cluster, question) (jobtrail_slurm_last_answer_timestamp_seconds))"),
               unit="dtdurations", absent="Slurm is not asked, or has never answered",
               steps=((None, "green"), (300, "orange"), (900, "red"))),
        number("Jobs left off the page", "Jobs without series because of metrics.max_jobs; they are in the database "
               "all the same.",
               now("sum(increase(jobtrail_series_shed_jobs_total[1h]))"), unit="short", absent=NO_DAEMON,
               steps=looks.NONE_IS_BETTER, decimals=0),
    )  # fmt: skip


def _spool() -> tuple[Panel, ...]:
    return (
        lines("Events waiting", "Events in each daemon's spool that are not in the database yet.",
              over_time("jobtrail_spool_depth", BY_INSTANCE), unit="short", absent=NO_DAEMON, width=THIRD),
        lines("Age of the oldest waiting", "How far each daemon is behind the database.",
              over_time("jobtrail_spool_oldest_unforwarded_age_seconds", BY_INSTANCE), unit="dtdurations",
              absent="Nothing waits", width=THIRD),
        lines("Events taken in and stored", "Of all daemons. Stored lags taken in while the database is away.",
              _rate("jobtrail_events_received_total", legend="taken in"),
              _rate("jobtrail_events_forwarded_total", ref_id="B", legend="stored"),
              unit="suffix: events/s", absent=NO_DAEMON, width=THIRD),
        lines("Tries to reach the database that failed", "By what was to be stored, and why.",
              _rate("jobtrail_forward_failures_total", "of, reason"), unit="suffix: tries/s", absent=NO_DAEMON,
              width=THIRD, stack=True),
        lines("Requests refused", "By reason: events that hooks or people sent and the daemon did not take.",
              _rate("jobtrail_events_rejected_total", "reason"), unit="reqps", absent=NO_DAEMON, width=THIRD,
                    stack=True),
        lines("Size of spools", "Each daemon's spool on disk.", over_time("jobtrail_spool_bytes", BY_INSTANCE),
              unit="bytes", absent=NO_DAEMON, width=THIRD),
    )  # fmt: skip


def _given_up() -> tuple[Panel, ...]:
    return (
        lines("Files set aside", "Files of earlier chains that lie beside a spool: the chain was given up, or the file "
              "was damaged.",
              over_time("sum by (instance, why) (jobtrail_spool_files_set_aside)", "{{instance}} {{why}}"),
              unit="short", absent=NO_DAEMON, width=THIRD, steps=((None, "green"), (1, "red"))),
        lines("Chains given up", "Chains that did not fit the database's copy. The daemon then ends, and with it this "
              "count.",
              _more_of("jobtrail_chains_given_up_total", "reason"), unit="short", absent=NO_DAEMON, width=THIRD,
              bars=True),
        lines("Gap records", "Each tells in the trail what was given up for want of room.",
              _more_of("jobtrail_gaps_recorded_total", "instance"), unit="short", absent=NO_DAEMON, width=THIRD,
              bars=True),
        lines("Contradicted checkpoints", "Checkpoints of the database that contradict what a node knows.",
              over_time("sum by (instance, problem) (jobtrail_audit_witness_mismatches_total)",
                        "{{instance}} {{problem}}"),
              unit="short", absent=NO_DAEMON, width=THIRD, steps=((None, "green"), (1, "red"))),
        lines("Turned away", "By why: those who should not have come.",
              _more_of("jobtrail_security_events_total", "what"), unit="short", absent=NO_DAEMON, width=THIRD,
              bars=True),
        lines("Nodes in another's name", "What nodes sent in another node's name; it was refused.",
              _more_of("jobtrail_node_contradictions_total", "what"), unit="short", absent=NO_DAEMON, width=THIRD,
              bars=True),
        lines("Nodes' requests without an answer", "What nodes that forward to servers asked in vain, by what came of "
              "it.",
              over_time('sum by (outcome) (rate(jobtrail_link_requests_total{outcome!~"ok|gap|refused"}'
                        "[$__rate_interval]))", "{{outcome}}"),
              unit="suffix: tries/s", absent=NO_DAEMON, width=THIRD, stack=True),
        lines("Since a server answered", "Of nodes that forward to servers.",
              over_time("time() - max by (instance) (jobtrail_link_last_answer_timestamp_seconds)", BY_INSTANCE),
              unit="dtdurations", absent="No node forwards to servers", width=THIRD),
        lines("AdminComments not written", "Tries in which Slurm's accounting took none.",
              _more_of("jobtrail_admin_comment_failures_total", "instance"), unit="short", absent=NO_DAEMON,
              width=THIRD, bars=True),
    )  # fmt: skip


def _intake() -> tuple[Panel, ...]:
    return (
        lines("Events by kind", "Events durably held.", _rate("jobtrail_events_received_total", "kind"),
              unit="suffix: events/s", absent=NO_DAEMON, width=THIRD, stack=True),
        lines("Files of hooks", "Events taken up from files that hooks left while no daemon answered, and files that "
              "are no event.",
              _rate("jobtrail_incoming_taken_total", legend="taken up"),
              _rate("jobtrail_incoming_quarantined_total", ref_id="B", legend="quarantined"),
              unit="suffix: files/s", absent=NO_DAEMON, width=THIRD, colours={"quarantined": looks.BAD}),
        lines("Events that came again", "Already held here (deduplicated) or in the database (replayed): both are "
              "harmless.",
              _rate("jobtrail_events_deduplicated_total", legend="deduplicated"),
              _rate("jobtrail_events_replayed_total", ref_id="B", legend="replayed"),
              unit="suffix: events/s", absent=NO_DAEMON, width=THIRD),
        lines("Events that changed nothing", "In the trail, and refused by their job.",
              _rate("jobtrail_projection_refused_total", "instance"), unit="suffix: events/s", absent=NO_DAEMON,
              width=THIRD),
        lines("Spools in memory", "1 where a spool lies on a file system in memory and a power cut loses its events.",
              over_time("1 - jobtrail_spool_durable", BY_INSTANCE), unit="short", absent=NO_DAEMON, width=THIRD,
              steps=((None, "green"), (1, "red"))),
        lines("Clocks", "How far each daemon's clock was ahead of the database's at the last batch it forwarded; "
              "below 0 it was behind. Beyond five seconds JobtrailClockOff fires.",
              over_time("max by (instance) (jobtrail_clock_skew_seconds)", BY_INSTANCE), unit="s",
              absent="No daemon's batch was answered with a time yet", width=THIRD, low=None,
              steps=((None, "red"), (-5, "green"), (5, "red"))),
        lines("Jobs adopted", "Running jobs found when a daemon started.",
              _more_of("jobtrail_jobs_adopted_total", "found_by"), unit="short", absent=NO_DAEMON, width=THIRD,
                       bars=True),
    )  # fmt: skip


def _slurm() -> tuple[Panel, ...]:
    return (
        lines("Since Slurm answered", "By kind of question; of several servers, the one that asks.",
              over_time("time() - max by (cluster, question) (jobtrail_slurm_last_answer_timestamp_seconds)",
                        "{{cluster}} {{question}}"),
              unit="dtdurations", absent="Slurm is not asked, or has never answered", width=QUARTER),
        lines("Questions without an answer", "By kind of question.", _rate("jobtrail_slurm_failures_total", "question"),
              unit="suffix: tries/s", absent=NO_DAEMON, width=QUARTER, stack=True),
        lines("Slurm's words recorded", "By where they came from.",
              _more_of("jobtrail_runs_reconciled_total", "origin"), unit="short", absent=NO_DAEMON, width=QUARTER,
              bars=True),
        lines("Runs closed without an epilog", "By what showed that they were over.",
              _more_of("jobtrail_runs_closed_total", "reason"), unit="short", absent=NO_DAEMON, width=QUARTER,
                       bars=True),
        lines("Records not understood", "Records of Slurm's answers that could not be read.",
              _rate("jobtrail_slurm_records_unreadable_total", "instance"), unit="suffix: records/s", absent=NO_DAEMON,
              width=QUARTER),
    )  # fmt: skip


def _sampling() -> tuple[Panel, ...]:
    tick = "sum by (le) (rate(jobtrail_tick_seconds_bucket[$__rate_interval]))"
    return (
        lines("Time of a look at all jobs", "Half of the looks, and 99 of 100, were faster than this.",
              over_time(f"histogram_quantile(0.5, {tick})", "median"),
              over_time(f"histogram_quantile(0.99, {tick})", "99th percentile", "B"), unit="s", absent=NO_DAEMON,
              width=THIRD),
        lines("Looks at jobs", "With or without a reading.", _rate("jobtrail_samples_total", "instance"),
              unit="suffix: looks/s", absent=NO_DAEMON, width=THIRD),
        lines("Looks without a reading", "By reason. not_yet and gone belong to every job's begin and end.",
              _rate("jobtrail_sample_misses_total", "reason"), unit="suffix: looks/s", absent=NO_DAEMON, width=THIRD,
              stack=True),
        lines("Readers that failed", "A reader failed as a whole: by reader and reason.",
              _rate("jobtrail_reader_errors_total", "reader, reason"), unit="suffix: looks/s", absent=NEVER,
                    width=THIRD,
              stack=True),
        lines("Samples stored and given up", "Given up: the database was away too long. Totals of jobs do not suffer.",
              _rate("jobtrail_samples_written_total", legend="stored"),
              _rate("jobtrail_samples_dropped_total", ref_id="B", legend="given up"), unit="suffix: samples/s",
              absent=NO_DAEMON, width=THIRD, colours={"given up": looks.BAD}),
        lines("Oldest reading of a job", "On each node, the job whose last sample is the oldest.",
              over_time("max by (cluster, node) (hpc_job_sample_age_seconds)", "{{cluster}} {{node}}"),
              unit="dtdurations",
              absent="No job is being measured", width=THIRD, link=looks.node_label_link()),
    )  # fmt: skip


def _gpus() -> tuple[Panel, ...]:
    look = "sum by (le, gpu_vendor) (rate(jobtrail_gpu_look_seconds_bucket[$__rate_interval]))"
    return (
        lines("Time of a look at all GPUs", "95 of 100 looks were faster than this.",
              over_time(f"histogram_quantile(0.95, {look})", "{{gpu_vendor}}"), unit="s",
              absent="No look at GPUs has succeeded", width=QUARTER),
        lines("Looks at GPUs that failed", "By vendor and reason.",
              _rate("jobtrail_gpu_look_failures_total", "gpu_vendor, reason"), unit="suffix: looks/s", absent=NEVER,
              width=QUARTER, stack=True),
        lines("Values that GPUs do not give", "Each counted once of a GPU, by reason.",
              over_time("sum by (gpu_vendor, reason) (jobtrail_gpu_values_absent_total)", "{{gpu_vendor}} {{reason}}"),
              unit="short", absent=NEVER, width=QUARTER, stack=True),
        lines("Processes on GPUs they do not hold", "Each counted once of a GPU, since the daemons started.",
              over_time("sum by (kind) (jobtrail_gpu_mismatches_total)", "{{kind}}"), unit="short", absent=NO_DAEMON,
              width=QUARTER, stack=True),
    )  # fmt: skip


def _chores() -> tuple[Panel, ...]:
    return (
        lines("Benchmarks settled", "Runs whose links and energy are final, by the best link to a job.",
              _more_of("jobtrail_benchmark_runs_settled_total", "link"), unit="short", absent=NO_DAEMON, width=QUARTER,
              bars=True),
        lines("New verdicts", "On gated metrics.", _more_of("jobtrail_benchmark_verdicts_total", "verdict"),
              unit="short",
              absent=NO_DAEMON, width=QUARTER, bars=True, colours=looks.VERDICTS),
        lines("Benchmarks not settled", "Turns that failed because the database was away, and runs it did not take.",
              _more_of("jobtrail_benchmark_settle_failures_total", "instance"),
              _more_of("jobtrail_benchmark_refusals_total", "instance", "B"), unit="short", absent=NO_DAEMON,
              width=QUARTER, bars=True),
        lines("Benchmark files", "Reports taken up from the drop directory, and files there that are none.",
              _rate("jobtrail_benchmark_files_taken_total", legend="taken up"),
              _rate("jobtrail_benchmark_files_refused_total", "reason", "B"), unit="suffix: files/s", absent=NO_DAEMON,
              width=QUARTER),
        lines("Days of samples", "Partitions made and dropped.", _more_of("jobtrail_partitions_total", "change"),
              unit="short", absent=NO_DAEMON, width=THIRD, bars=True),
        lines("Chores that failed", "Regular work on the database.",
              _more_of("jobtrail_chore_failures_total", "instance"), unit="short", absent=NO_DAEMON, width=THIRD,
              bars=True),
        lines("Benchmarks left off the page", "Sets of labels beyond benchmarks.max_series.",
              _more_of("jobtrail_benchmark_series_shed_total", "instance"), unit="short", absent=NO_DAEMON, width=THIRD,
              bars=True),
    )  # fmt: skip


def _processes() -> tuple[Panel, ...]:
    ours = "and on (instance) jobtrail_build_info"
    return (
        lines("CPU of daemons", "CPUs that each daemon keeps busy.",
              over_time(f"rate(process_cpu_seconds_total[$__rate_interval]) {ours}", BY_INSTANCE), unit="percentunit",
              absent=NO_DAEMON, width=THIRD),
        lines("Memory of daemons", "Resident memory.", over_time(f"process_resident_memory_bytes {ours}", BY_INSTANCE),
              unit="bytes", absent=NO_DAEMON, width=THIRD),
        lines("Open files", "Of those allowed.",
              over_time(f"process_open_fds / process_max_fds {ours}", BY_INSTANCE), unit="percentunit",
                        absent=NO_DAEMON,
              width=THIRD, steps=((None, "green"), (0.8, "red"))),
        listing(
            "Versions and starts", "Versions, and when each started.",
            rows_now("jobtrail_build_info * on (instance) group_left () process_start_time_seconds * 1000"),
            columns=(
                Column("instance", "string", "Daemon"),
                Column("version", "string", "Version"),
                Column("python", "string", "Python"),
                Column("Value", "dateTimeAsIso", "Started"),
            ),
            absent=NO_DAEMON, width=WHOLE, sort="instance", ascending=True,
        ),
    )  # fmt: skip
