package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A machine is where and what was measured.
type machine struct {
	Go           string `json:"go"`
	Processors   int    `json:"processors"`
	Binary       string `json:"binary"`
	BinaryBytes  int64  `json:"binaryBytes"`
	LoadAtStart  string `json:"loadAtStart"` // of the last 1, 5 and 15 minutes; a busy machine spoils times, and ratios less
	LoadAtTheEnd string `json:"loadAtTheEnd"`
}

// A row is what one server did under one load. Times are of a pod: both halves.
type row struct {
	Scenario    string             `json:"scenario"`
	LatencyMS   float64            `json:"registryLatencyMS"`
	Clients     int                `json:"clients"`
	Server      string             `json:"server"`
	Pods        int                `json:"pods"`
	Outcomes    map[outcome]int    `json:"outcomes"`
	P50         float64            `json:"p50MS"`
	P95         float64            `json:"p95MS"`
	P99         float64            `json:"p99MS"`
	Max         float64            `json:"maxMS"`
	PodsASecond float64            `json:"podsASecond"`
	CPU         float64            `json:"cpuMicrosecondsAReview"`
	Requests    int64              `json:"registryRequests"`
	RSS         int64              `json:"rssBytes"`
	Peak        int64              `json:"rssPeakBytes"`
	Says        map[outcome]string `json:"says,omitempty"` // the first message of each outcome but allowed
}

// A ratio compares Hallmark with the cheaper floor under the same load in the same run.
type ratio struct {
	Scenario   string  `json:"scenario"`
	LatencyMS  float64 `json:"registryLatencyMS"`
	Clients    int     `json:"clients"`
	Server     string  `json:"server"`
	Floor      string  `json:"floor"`
	CPU        float64 `json:"cpu"`        // a review, times that of the floor
	P50        float64 `json:"p50"`        // times that of the floor
	P99        float64 `json:"p99"`        // times that of the floor
	Throughput float64 `json:"throughput"` // a part of that of the floor
}

type report struct {
	Machine machine  `json:"machine"`
	Rows    []row    `json:"rows"`
	Ratios  []ratio  `json:"ratios"`
	Notes   []string `json:"notes"`
}

func describe(binary string) (machine, error) {
	bytes, err := size(binary)
	return machine{
		Go: runtime.Version(), Processors: runtime.NumCPU(), Binary: binary, BinaryBytes: bytes, LoadAtStart: machineLoad(),
	}, err
}

func machineLoad() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

func (r *report) finish() { r.Machine.LoadAtTheEnd = machineLoad() }

func (r *report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func (r *report) row(scenario string, latency time.Duration, clients int, server string, t turn) {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	pods := float64(max(1, len(t.took)))
	r.Rows = append(r.Rows, row{
		Scenario: scenario, LatencyMS: ms(latency), Clients: clients, Server: server, Pods: len(t.took), Outcomes: t.outcomes,
		P50: ms(t.quantile(.5)), P95: ms(t.quantile(.95)), P99: ms(t.quantile(.99)), Max: ms(t.quantile(1)),
		PodsASecond: pods / t.wall.Seconds(), CPU: float64(t.cpu.Microseconds()) / float64(max(1, t.reviews)),
		Requests: t.requests, RSS: t.now.rss, Peak: t.now.peak, Says: t.says,
	})
}

// compare compares the rows of one load, which are the last ones.
func (r *report) compare(scenario string, latency time.Duration, clients int) {
	first := slices.IndexFunc(r.Rows, func(o row) bool {
		return o.Scenario == scenario && o.Clients == clients && o.LatencyMS == float64(latency.Microseconds())/1000
	})
	if first < 0 {
		return
	}
	same := r.Rows[first:]
	floor := same[len(same)-1]
	for _, o := range same {
		if strings.HasPrefix(o.Server, "floor") && o.CPU < floor.CPU {
			floor = o
		}
	}
	for _, o := range same {
		if strings.HasPrefix(o.Server, "floor") || floor.CPU == 0 { // less than the kernel tells: too short to compare
			continue
		}
		r.Ratios = append(r.Ratios, ratio{
			Scenario: scenario, LatencyMS: o.LatencyMS, Clients: clients, Server: o.Server, Floor: floor.Server,
			CPU: o.CPU / floor.CPU, P50: o.P50 / floor.P50, P99: o.P99 / floor.P99, Throughput: o.PodsASecond / floor.PodsASecond,
		})
	}
}

func (r *report) json(out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

func (r *report) text(out io.Writer) error {
	m := r.Machine
	fmt.Fprintf(out, "%s, %d processors, load %s before and %s after; %s has %.1f MB\n\n",
		m.Go, m.Processors, m.LoadAtStart, m.LoadAtTheEnd, m.Binary, float64(m.BinaryBytes)/1e6)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	if len(r.Rows) > 0 {
		fmt.Fprintln(w, "scenario\tregistry ms\tclients\tserver\tpods\tp50 ms\tp95\tp99\tmax\tpods/s\tCPU µs/review\trequests\ta pod\tMiB\tpeak\t")
	}
	for _, o := range r.Rows {
		fmt.Fprintf(w, "%s\t%.0f\t%d\t%s\t%d\t%.2f\t%.2f\t%.2f\t%.1f\t%.0f\t%.0f\t%d\t%.2f\t%d\t%d\t %s\n", o.Scenario, o.LatencyMS, o.Clients, o.Server, o.Pods,
			o.P50, o.P95, o.P99, o.Max, o.PodsASecond, o.CPU, o.Requests,
			float64(o.Requests)/float64(max(1, o.Pods)), o.RSS>>20, o.Peak>>20, notAllowed(o.Outcomes))
	}
	if len(r.Ratios) > 0 {
		fmt.Fprintln(w, "\t")
		fmt.Fprintln(w, "scenario\tregistry ms\tclients\tserver\tto\tCPU a review\tp50\tp99\tthroughput\t")
	}
	for _, o := range r.Ratios {
		fmt.Fprintf(w, "%s\t%.0f\t%d\t%s\t%s\t× %.2f\t× %.2f\t× %.2f\t× %.2f\t\n", o.Scenario, o.LatencyMS, o.Clients, o.Server, o.Floor, o.CPU, o.P50, o.P99, o.Throughput)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, o := range r.Rows {
		for outcome, text := range o.Says {
			if text == "" {
				continue
			}
			first, _, _ := strings.Cut(text, "\n")
			fmt.Fprintf(out, "\n%s, %s: %s: %s", o.Scenario, o.Server, outcome, first)
		}
	}
	for _, note := range r.Notes {
		fmt.Fprintf(out, "\n%s", note)
	}
	_, err := fmt.Fprintln(out)
	return err
}

// notAllowed lists what came of the pods that were not allowed.
func notAllowed(outcomes map[outcome]int) string {
	var list []string
	for _, o := range []outcome{denied, undecided, failed} {
		if n := outcomes[o]; n > 0 {
			list = append(list, fmt.Sprintf("%d %s", n, o))
		}
	}
	return strings.Join(list, ", ")
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond / 10) }
