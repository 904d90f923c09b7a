#!/usr/bin/env nextflow

// Imputes and places every pair of a table with the columns id, sc and st.

include { CELLWEFT_IMPUTE } from './modules/cellweft/impute/main'
include { CELLWEFT_PLACE } from './modules/cellweft/place/main'

workflow {
    if (!params.input) {
        error('Name the table of pairs: --input pairs.csv, with the columns id, sc and st.')
    }
    pairs = channel
        .fromPath(params.input, checkIfExists: true)
        .splitCsv(header: true)
        .map { row -> tuple([id: row.id], file(row.sc, checkIfExists: true), file(row.st, checkIfExists: true)) }

    CELLWEFT_IMPUTE(pairs, [], [], [], [])
    CELLWEFT_PLACE(pairs, [])

    CELLWEFT_IMPUTE.out.versions
        .first()
        .mix(CELLWEFT_PLACE.out.versions.first())
        .collectFile(name: 'versions.yml', storeDir: params.outdir)
}
