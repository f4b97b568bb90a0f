# Two commands: `make run` shows your own machine's telemetry, `make test` proves the product. Both install what they lack.
.PHONY: run test bench ui fmt lint

run:
	@scripts/run.sh

test:
	@scripts/test.sh

# Figures of this machine only, as ratios within one run. `make bench ROUNDS=1 SECONDS_A_LANE=5` is a smoke run.
bench:
	@scripts/bench.sh

ui:
	@cd unprivileged-gateway/ui && npm ci --no-audit --no-fund && npm run build

fmt:
	@cargo fmt --all

lint:
	@cargo clippy --workspace --all-targets -- -D warnings
