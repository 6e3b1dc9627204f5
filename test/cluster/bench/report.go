package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// A row is all turns with, or all without.
type row struct {
	Hallmark    bool    `json:"hallmark"`
	Turns       int     `json:"turns"`
	Pods        int     `json:"pods"`
	P50         float64 `json:"p50MS,omitempty"` // of a creation
	P99         float64 `json:"p99MS,omitempty"`
	Max         float64 `json:"maxMS,omitempty"`
	Seconds     float64 `json:"secondsATurn"`
	PodsASecond float64 `json:"podsASecond"`
	CPU         float64 `json:"hallmarkCPUMSAPod"`
}

// An overhead is with against without.
type overhead struct {
	P50MS      float64 `json:"p50MS"` // more than without
	P99MS      float64 `json:"p99MS"`
	Throughput float64 `json:"throughput"` // a part of that without
}

type report struct{ with, without []measurement }

func (r *report) add(hooked bool, m measurement) {
	if hooked {
		r.with = append(r.with, m)
		return
	}
	r.without = append(r.without, m)
}

func rowOf(hooked bool, turns []measurement) row {
	var all measurement
	for _, m := range turns {
		all.took = append(all.took, m.took...)
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
		Hallmark: hooked, Turns: len(turns), Pods: all.pods, P50: at(.5), P99: at(.99), Max: at(1),
		Seconds: all.wall.Seconds() / float64(len(turns)), PodsASecond: float64(all.pods) / all.wall.Seconds(), CPU: float64(all.cpu) / float64(time.Millisecond) / float64(all.pods),
	}
}

func (r *report) print(out io.Writer, format string) error {
	rows := []row{rowOf(false, r.without), rowOf(true, r.with)}
	over := overhead{rows[1].P50 - rows[0].P50, rows[1].P99 - rows[0].P99, rows[1].PodsASecond / rows[0].PodsASecond}
	if format == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(map[string]any{"rows": rows, "overhead": over})
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "Hallmark\tturns\tpods\tp50 ms\tp99\tmax\tseconds\tpods/s\tCPU ms of Hallmark a pod\t")
	for _, o := range rows {
		name := "without"
		if o.Hallmark {
			name = "with"
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%s\t%.1f\t%.0f\t%.2f\t\n", name, o.Turns, o.Pods, ms(o.P50), ms(o.P99), ms(o.Max), o.Seconds, o.PodsASecond, o.CPU)
	}
	fmt.Fprintf(w, "overhead\t\t\t%+.1f\t%+.1f\t\t\t× %.2f\t\t\n", over.P50MS, over.P99MS, over.Throughput)
	return w.Flush()
}

// ms leaves out what was not measured: who creates the pods of a Deployment is not this program.
func ms(n float64) string {
	if n == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f", n)
}
