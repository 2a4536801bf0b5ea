-- What wrk is told after `--`: how many bytes of body each request carries.
-- What it prints at the end: one line of JSON; times in microseconds.

function init(args)
  local upload = tonumber(args[1])
  if upload > 0 then
    wrk.method = "POST"
    wrk.body = string.rep("x", upload)
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\nfigures {"requests": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "p999_us": %d, '
      .. '"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
