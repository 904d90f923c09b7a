#!/usr/bin/env nextflow

// Imputes and places every pair of a table with the columns id, sc and st.

include { WEFT_IMPUTE } from './modules/weft/impute/main'
include { WEFT_PLACE } from './modules/weft/place/main'

workflow {
    if (!params.input) {
        error('Name the table of pairs: --input pairs.csv, with the columns id, sc and st.')
    }
    pairs = channel
        .fromPath(params.input, checkIfExists: true)
        .splitCsv(header: true)
        .map { row -> tuple([id: row.id], file(row.sc, checkIfExists: true), file(row.st, checkIfExists: true)) }

    WEFT_IMPUTE(pairs, [], [], [], [])
    WEFT_PLACE(pairs, [])

    WEFT_IMPUTE.out.versions
        .first()
        .mix(WEFT_PLACE.out.versions.first())
        .collectFile(name: 'versions.yml', storeDir: params.outdir)
}
