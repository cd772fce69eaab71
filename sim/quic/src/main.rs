//! Runs seeds: `towline-sim-quic --seeds 0..50`.

fn main() {
    let credentials = towline_sim_quic::credentials();
    let args: Vec<String> = std::env::args().collect();
    let seeds: Vec<u64> = args[2].split("..").map(|n| n.parse().expect("n")).collect();
    for seed in seeds[0]..seeds[1] {
        let begun = std::time::Instant::now();
        let out = towline_sim_quic::run(seed, &credentials, args.len() > 3);
        println!("seed {seed} {:016x} packets {} acks {:?} virtual {:?} wall {:?} {:?}", out.trace, out.packets, out.acknowledged, out.virtual_time, begun.elapsed(), out.violations.first());
    }
}
