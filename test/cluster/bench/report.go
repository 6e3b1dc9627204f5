package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// A row is all turns of a candidate.
type row struct {
	Webhooks    string  `json:"webhooks"` // by whom
	Turns       int     `json:"turns"`
	Pods        int     `json:"pods"`
	P50         float64 `json:"p50MS,omitempty"` // of a creation
	P99         float64 `json:"p99MS,omitempty"`
	Max         float64 `json:"maxMS,omitempty"`
	Seconds     float64 `json:"secondsATurn"`
	PodsASecond float64 `json:"podsASecond"`
	CPU         float64 `json:"serverCPUMSAPod"`
	Processor   float64 `json:"serverProcessor"` // share of one that the server took
	MiB         float64 `json:"serverMiB"`
	Throughput  float64 `json:"throughput"` // a part of that without webhooks
}

type report struct {
	turns [len(candidates)][]measurement
}

func rowOf(name string, turns []measurement) row {
	var all measurement
	for _, m := range turns {
		all.took = append(all.took, m.took...)
		all.resident = max(all.resident, m.resident)
		all.wall, all.pods, all.cpu = all.wall+m.wall, all.pods+m.pods, all.cpu+m.cpu
	}
	slices.Sort(all.took)
	at := func(q float64) float64 {
		if len(all.took) == 0 {
			return 0
		}
		return float64(all.took[min(len(all.took)-1, int(q*float64(len(all.took))))].Microseconds()) / 1000
	}
	return row{
		Webhooks: name, Turns: len(turns), Pods: all.pods, P50: at(.5), P99: at(.99), Max: at(1),
		Seconds: all.wall.Seconds() / float64(len(turns)), PodsASecond: float64(all.pods) / all.wall.Seconds(), CPU: float64(all.cpu) / float64(time.Millisecond) / float64(all.pods),
		Processor: all.cpu.Seconds() / all.wall.Seconds(), MiB: float64(all.resident) / (1 << 20),
	}
}

func (r *report) print(out io.Writer, format string) error {
	rows := make([]row, len(candidates))
	for i := range slices.Backward(rows) { // none is the last, and what the others are compared with
		rows[i] = rowOf(candidates[i], r.turns[i])
		rows[i].Throughput = rows[i].PodsASecond / rows[byNone].PodsASecond
	}
	if format == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(map[string]any{"rows": rows})
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "webhooks\tturns\tpods\tp50 ms\tp99\tmax\tseconds\tpods/s\tto none\tserver: CPU ms a pod\tprocessor\tMiB\t")
	for _, o := range rows {
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%s\t%.1f\t%.0f\t× %.2f\t%.2f\t%.3f\t%.0f\t\n",
			o.Webhooks, o.Turns, o.Pods, ms(o.P50), ms(o.P99), ms(o.Max), o.Seconds, o.PodsASecond, o.Throughput, o.CPU, o.Processor, o.MiB)
	}
	return w.Flush()
}

// ms leaves out what was not measured: who creates the pods of a Deployment is not this program.
func ms(n float64) string {
	if n == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f", n)
}
