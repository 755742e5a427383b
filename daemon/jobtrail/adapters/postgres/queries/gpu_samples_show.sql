-- Samples of a run's GPUs by time. $1 cluster, $2 job id, $3 openers, $4 begin, $5 end, $6 limit
SELECT
    sampled_at, node, gpu_id, vendor, utilization_percent, memory_utilization_percent, memory_used_bytes,
    memory_total_bytes, power_watts, power_limit_watts, energy_joules, temperature_celsius,
    memory_temperature_celsius, sm_clock_hertz, memory_clock_hertz, throttle_reasons, pcie_receive_bytes_per_second,
    pcie_transmit_bytes_per_second, nvlink_receive_bytes, nvlink_transmit_bytes, ecc_corrected, ecc_uncorrected,
    remapped_rows_corrected, remapped_rows_uncorrected, remapped_rows_pending, sm_active_percent,
    sm_occupancy_percent, tensor_active_percent, fp64_active_percent, fp32_active_percent, fp16_active_percent,
    dram_active_percent, events, processes, absent
FROM gpu_samples
WHERE job_id = $2 AND cluster_name = $1 AND sampled_at >= $4 AND sampled_at < $5 AND opened_by = ANY ($3::uuid[])
ORDER BY sampled_at, node, gpu_id
LIMIT $6::bigint
